//! Figures, their targets, and the file that they are written to.
use std::fmt::Write as _;
use std::process::Command;

/// What a figure must reach.
#[derive(Clone, Copy)]
pub enum Target {
    None,
    AtLeast(f64),
    AtMost(f64),
}

/// Figures in the order in which they were measured.
#[derive(Default)]
pub struct Report(Vec<(String, f64, &'static str, Target)>);

impl Report {
    pub fn add(&mut self, figure: impl Into<String>, value: f64, unit: &'static str, target: Target) {
        let figure = figure.into();
        let mark = match met(value, target) {
            None => "",
            Some(true) => "  ok",
            Some(false) => "  MISSED",
        };
        eprintln!("{figure:<70} {:>10} {unit}{mark}", rounded(value));
        self.0.push((figure, value, unit, target));
    }

    pub fn ratio(&mut self, figure: impl Into<String>, value: f64, at_least: f64) {
        self.add(figure, value, "x", Target::AtLeast(at_least));
    }

    /// The report as JSON, in the form of every file in benches/results/.
    pub fn json(&self, command: &str) -> String {
        let mut text = format!(
            "{{\n  \"command\": {command:?},\n  \"commit\": {:?},\n  \"machine\": {:?},\n  \"rows\": [",
            commit(),
            machine()
        );
        for (at, (figure, value, unit, target)) in self.0.iter().enumerate() {
            let bound = match target {
                Target::None => "null".to_owned(),
                Target::AtLeast(bound) => format!("\">= {bound}\""),
                Target::AtMost(bound) => format!("\"<= {bound}\""),
            };
            let met = met(*value, *target).map_or("null".to_owned(), |met| met.to_string());
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(
                text,
                "{comma}\n    {{\n      \"figure\": {figure:?},\n      \"value\": {},\n      \"unit\": {unit:?},\n      \
                 \"target\": {bound},\n      \"met\": {met}\n    }}",
                rounded(*value)
            );
        }
        text.push_str("\n  ]\n}\n");
        text
    }
}

fn met(value: f64, target: Target) -> Option<bool> {
    match target {
        Target::None => None,
        Target::AtLeast(bound) => Some(value >= bound),
        Target::AtMost(bound) => Some(value <= bound),
    }
}

/// Four significant digits.
fn rounded(value: f64) -> String {
    let digits = 3 - value.abs().max(1e-3).log10().floor() as i32;
    format!("{value:.*}", usize::try_from(digits).unwrap_or(0))
}

fn commit() -> String {
    let said = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.unwrap_or_default()
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| {
        line.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{model}, {cores} cores, Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    )
}
