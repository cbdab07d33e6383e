//! The power-cut rig: `floortape serve` on a file system whose power goes at any instant, and what
//! must be there when it comes back (F06, F10, F12). Run by `tests/power.sh`, which says what it
//! needs; `cargo test` runs only the rig's own check, which needs nothing.
//!
//! Two ways to cut: the file system's own shutdown ioctl (K4), and a fault disk of ours under it
//! that forgets what was not flushed, sector by sector (K5).

mod dialer;
mod disk;
mod host;
mod image;
mod recovery;
mod report;
mod ring;
mod round;
mod selfcheck;
mod server;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use disk::FaultDisk;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let told = match words[..] {
        ["selfcheck", folder, seeds] => {
            selfcheck::run(Path::new(folder), seeds.parse().unwrap_or(20))
        }
        ["disk", folder, mib] => serve_disk(Path::new(folder), mib),
        ["recovery", folder, mib] => recovery::run(Path::new(folder), mib.parse().unwrap_or(4096)),
        ["rounds", ref options @ ..] => report::run(options),
        // What cargo passes to every test target is no word of ours.
        _ => {
            image::check();
            Ok("power: the disk's cache model is sound; the cuts themselves: tests/power.sh".into())
        }
    };
    match told {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("power: {why}");
            ExitCode::FAILURE
        }
    }
}

const DISK_WORDS: &str = "cut SEED, revive, delay-write MS, delay-flush MS, stall MS, \
                          fail-write N, fail-flush N, full 0|1";

/// A fault disk for other tests: `FOLDER/disk` is its file until standard input ends. Each line is
/// a command, answered by a line: `ok`, `no: …`, or what a cut left.
fn serve_disk(folder: &Path, mib: &str) -> Result<String, String> {
    let bytes = mib.parse::<usize>().map_err(|error| format!("{mib} MiB: {error}"))? << 20;
    let disk = FaultDisk::mount(folder, bytes).map_err(|error| error.to_string())?;
    println!("ready: {}", disk.file().display());
    for line in std::io::stdin().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let (word, number) = line.split_once(' ').unwrap_or((&line, "0"));
        let number = number.parse::<u64>();
        let time = || Duration::from_millis(*number.as_ref().unwrap_or(&0));
        match (word, &number) {
            ("cut", Ok(seed)) => {
                println!("{:?}", disk.cut(*seed));
                continue;
            }
            ("revive", Ok(_)) => disk.revive(),
            ("delay-write", Ok(_)) => disk.delay_writes(time()),
            ("delay-flush", Ok(_)) => disk.delay_flushes(time()),
            ("stall", Ok(_)) => disk.stall(time()),
            ("fail-write", Ok(nth)) => disk.fail_write(*nth),
            ("fail-flush", Ok(nth)) => disk.fail_flush(*nth),
            ("full", Ok(full)) => disk.full(*full != 0),
            _ => {
                println!("no: {DISK_WORDS}");
                continue;
            }
        }
        println!("ok");
    }
    Ok(format!("{} flushes", disk.flushes()))
}
