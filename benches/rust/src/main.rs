//! The prefix table against other crates, in ratios of one run; `README.md` beside this says how to run it.
mod measure;
mod peers;
mod report;
mod tables;

use std::env;
use std::fs;
use std::process::{Command, ExitCode, Stdio};

use measure::Counting;
use report::{Report, Target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Flags of the build that is measured against the peers.
const NATIVE: &str = "-C target-cpu=native";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--json", file] => compare(Some(file)),
        [] => compare(None),
        ["--only", group] => {
            if !measure::only(&mut Report::default(), group) {
                eprintln!("{group}: want one of {}", measure::GROUPS.join(", "));
                return ExitCode::FAILURE;
            }
        }
        ["--ours"] => println!("{}", measure::ours_only()),
        ["--count", what, lookups] => measure::count(what, lookups.parse().expect("a number")),
        _ => {
            eprintln!("usage: overlaynet-table-bench [--json FILE | --only GROUP]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Measures everything, in a build for this very processor; what was asked to run is the build for any.
fn compare(file: Option<&str>) {
    if env::var_os("OVERLAYNET_BENCH_PLAIN").is_none() {
        let status = native()
            .args(file.map(|file| ["--json", file]).into_iter().flatten())
            .env(
                "OVERLAYNET_BENCH_PLAIN",
                env::current_exe().expect("this program has a path"),
            )
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "the build for this processor failed"
        );
        return;
    }
    let mut report = Report::default();
    measure::all(&mut report);
    plain(&mut report);
    instructions(&mut report);
    if let Some(file) = file {
        let text = report.json("cargo run --release --manifest-path benches/rust/Cargo.toml -- --json FILE");
        fs::write(file, text).expect("the file can be written");
    }
}

/// This program, built for this processor.
fn native() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["run", "--quiet", "--release", "--locked", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/target/native"))
        .arg("--")
        .env("RUSTFLAGS", NATIVE);
    command
}

/// The best of three alternating runs of each build, over ours alone.
fn plain(report: &mut Report) {
    let plain = env::var_os("OVERLAYNET_BENCH_PLAIN").expect("compare has looked");
    let native = env::current_exe().expect("this program has a path");
    let run = |program: &std::ffi::OsStr| -> Vec<f64> {
        let output = Command::new(program)
            .arg("--ours")
            .stderr(Stdio::inherit())
            .output();
        let output = output.expect("the program runs").stdout;
        let numbers = String::from_utf8_lossy(&output);
        numbers
            .split_whitespace()
            .map(|number| number.parse().expect("a number"))
            .collect()
    };
    let mut best = [
        vec![f64::MAX; measure::OURS.len()],
        vec![f64::MAX; measure::OURS.len()],
    ];
    for _ in 0..3 {
        for (program, best) in [plain.as_os_str(), native.as_os_str()].into_iter().zip(&mut best) {
            for (best, value) in best.iter_mut().zip(run(program)) {
                *best = best.min(value);
            }
        }
    }
    for (at, name) in measure::OURS.into_iter().enumerate() {
        report.ratio(
            format!("{name}: plain build / build for this processor"),
            best[1][at] / best[0][at],
            0.9,
        );
    }
}

/// Instructions a lookup, if there is a valgrind: what a run with lookups takes more than one without.
fn instructions(report: &mut Report) {
    const LOOKUPS: u32 = 200_000;
    let program = env::current_exe().expect("this program has a path");
    let count = |what: &str, lookups: u32| -> Option<f64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(&program)
            .args(["--count", what, &lookups.to_string()])
            .output()
            .ok()?;
        let said = String::from_utf8_lossy(&output.stderr);
        said.lines()
            .find_map(|line| line.split_once("Collected : "))?
            .1
            .trim()
            .parse()
            .ok()
    };
    for what in measure::COUNTED {
        if let (Some(with), Some(without)) = (count(what, LOOKUPS), count(what, 0)) {
            let each = (with - without) / f64::from(LOOKUPS);
            report.add(format!("{what}, random"), each, "instructions", Target::None);
        }
    }
}
