//! Every fuzz target over its corpus and over seeded mutants of it. `tests/fuzz/README.md` tells how
//! to run longer, and how to run the same targets under libFuzzer.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use floortape::base::prng::Prng;

#[path = "fuzz/seeds.rs"]
pub mod seeds;
#[path = "fuzz/targets/mod.rs"]
pub mod targets;

/// Longer mutants only cost time.
const MUTANT_BYTES_MAX: usize = 16 * 1024;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// The corpus of a target, in the order of its names.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(corpus(target)).expect("each target has a corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().expect("a file").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read(path).expect("readable"))).collect()
}

/// A number from the environment, so that a failure can be repeated and a run be made longer.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One input with one to six faults: bits, bytes, cuts, repeats, pieces of another input.
fn mutant(prng: &mut Prng, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
    let pick = |prng: &mut Prng| &corpus[prng.below(corpus.len() as u64) as usize].1;
    let mut bytes = pick(prng).clone();
    for _ in 0..=prng.below(6) {
        let at = prng.below(bytes.len() as u64 + 1) as usize;
        let longest = if prng.below(4) == 0 { 512 } else { 12 };
        let length = 1 + prng.below(longest) as usize;
        let end = (at + length).min(bytes.len());
        match prng.below(9) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << prng.below(8),
            2 if at < bytes.len() => bytes[at] = prng.next_u64() as u8,
            // Borders of numbers, and the characters that texts are made of.
            3 if at < bytes.len() => {
                let odd = b"\x00\x01\x7f\x80\xff\r\n \t\"\\<>;:,=/-*&%0";
                bytes[at] = odd[prng.below(odd.len() as u64) as usize];
            }
            4 => bytes[at..end].fill(if prng.below(2) == 0 { 0 } else { 0xff }),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let piece = bytes[at..end].to_vec();
                for _ in 0..=prng.below(20) {
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
            7 => {
                let other = pick(prng);
                let from = prng.below(other.len() as u64 + 1) as usize;
                let to = (from + length * 4).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
        bytes.truncate(MUTANT_BYTES_MAX);
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs the corpus, then `runs` mutants (`FUZZ_RUNS` times as many) from `FUZZ_SEED` on.
fn run(target: &str, runs: u64, check: impl Fn(&[u8])) {
    let corpus = inputs(target);
    let passes = |bytes: &[u8]| catch_unwind(AssertUnwindSafe(|| check(bytes))).is_ok();
    for (name, bytes) in &corpus {
        assert!(passes(bytes), "{target}: corpus file {name}");
    }
    let first = setting("FUZZ_SEED", 1);
    let runs = runs * setting("FUZZ_RUNS", 1);
    for seed in first..first + runs {
        let bytes = mutant(&mut Prng::new(seed), &corpus);
        assert!(
            passes(&bytes),
            "{target}: seed {seed} (repeat: FUZZ_SEED={seed} cargo test --test fuzz {target}): {}",
            hex(&bytes)
        );
    }
    println!("{target}: {} inputs, {runs} mutants", corpus.len());
}

macro_rules! fuzz {
    ($($target:ident $runs:literal,)*) => {
        $(#[test]
        fn $target() {
            run(stringify!($target), $runs, targets::$target);
        })*

        const TARGETS: &[&str] = &[$(stringify!($target)),*];
    };
}

fuzz! {
    sip_framing 4_000,
    sip_headers 6_000,
    sdp 4_000,
    crypto 6_000,
    multipart 6_000,
    metadata 4_000,
    merge 3_000,
    frame 20_000,
    rtp 20_000,
    rtcp 20_000,
    text 10_000,
    h264 10_000,
    digits 10_000,
    srtp 3_000,
    datagram 20_000,
    handoff 20_000,
    config 500,
    log 3_000,
    segment_keys 2_000,
    segment 4_000,
    packed 20_000,
    journal 3_000,
    audit 4_000,
    tar 20_000,
    tap_mark 20_000,
    tap_walk 20_000,
    peaks 20_000,
    thinned 3_000,
    evidence 6_000,
    store_keys 6_000,
    query 20_000,
    moment 20_000,
}

/// A format that changes without meaning to shows here. `FUZZ_WRITE=1` writes the corpus anew.
#[test]
fn the_corpus_is_what_our_writers_write() {
    for (target, name, bytes) in seeds::all() {
        let path = corpus(target).join(&name);
        if setting("FUZZ_WRITE", 0) == 1 {
            fs::create_dir_all(corpus(target)).expect("a folder");
            fs::write(&path, &bytes).expect("a file");
        }
        let found = fs::read(&path).unwrap_or_default();
        assert!(found == bytes, "{} differs; FUZZ_WRITE=1 writes it anew", path.display());
    }
}

#[test]
fn every_target_has_a_corpus_and_a_place_under_libfuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/cargo-fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    for target in TARGETS {
        assert!(!inputs(target).is_empty(), "{target} has no corpus");
        assert!(manifest.contains(&format!("name = \"{target}\"\n")), "{target}");
        let main = fs::read_to_string(folder.join(format!("fuzz_targets/{target}.rs")));
        assert!(main.expect("a target").contains(&format!("floortape_fuzz::{target}(data)")));
    }
}

/// What `verify` promises: a segment in which anything differs from what was sealed is not proven.
#[test]
fn no_mutant_of_a_segment_is_proven() {
    let corpus = inputs("segment");
    let key = seeds::signing_key().public_key();
    let proven = |bytes: &[u8]| targets::is_proven(bytes, seeds::SALT, &key);
    let sealed: Vec<&Vec<u8>> =
        corpus.iter().map(|(_, bytes)| bytes).filter(|bytes| proven(bytes)).collect();
    assert!(!sealed.is_empty());
    for seed in 0..4_000 * setting("FUZZ_RUNS", 1) {
        let bytes = mutant(&mut Prng::new(seed), &corpus);
        assert!(sealed.contains(&&bytes) || !proven(&bytes), "seed {seed}: {}", hex(&bytes));
    }
}

/// The same of what is left of one by retention: nobody takes an extent away unnoticed.
#[test]
fn no_mutant_of_a_thinned_segment_is_proven() {
    let corpus = inputs("thinned");
    let key = seeds::signing_key().public_key();
    let proven = |bytes: &[u8]| targets::is_proven_thinned(bytes, seeds::SALT, &key);
    assert!(corpus.iter().all(|(_, bytes)| proven(bytes)));
    for seed in 0..4_000 * setting("FUZZ_RUNS", 1) {
        let bytes = mutant(&mut Prng::new(seed), &corpus);
        let known = corpus.iter().any(|(_, own)| *own == bytes);
        assert!(known || !proven(&bytes), "seed {seed}: {}", hex(&bytes));
    }
}
