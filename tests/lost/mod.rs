//! What is taken from a store, or falls from it, is missed: before the next start, after it, and by
//! whoever asks a year later. The recorder goes on all the same.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;

use super::server::until;
use super::{Bench, PATIENCE, number, sources, text};

/// Longer than what the journal is told of the log may be behind it.
const TOLD: Duration = Duration::from_secs(3);

/// A call that nobody ends.
fn call(bench: &Bench) -> Child {
    let call = bench.src(&["--duration", "120", "--streams", "2", "--srtp", "none"]);
    until("packets on disk", PATIENCE, || (bench.durable() > 200).then_some(()));
    std::thread::sleep(TOLD);
    call
}

fn hang_up(mut call: Child) {
    call.kill().expect("it runs");
    call.wait().expect("ours");
}

impl Bench {
    /// Exit code of `verify --all`, and all that it says.
    fn verify_all(&self) -> (Option<i32>, String) {
        let verified = self.verb(&["verify", "--all"]);
        (verified.status.code(), text(&verified.stdout) + &text(&verified.stderr))
    }

    /// Ended by an operator who does not wait for calls: everything is sealed.
    fn stop(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.signal(Signal::INT);
        server.wait();
    }

    fn accuses(&self, words: &[&str], when: &str) {
        let (code, said) = self.verify_all();
        assert_eq!(code, Some(1), "{when}: {said}");
        for word in words {
            assert!(said.contains(word), "{when}: no {word} in {said}");
        }
    }

    fn files(&self, folder: &str, ending: &str) -> Vec<PathBuf> {
        let folder = self.folder.join("store").join(folder);
        let listed = std::fs::read_dir(folder).expect("there").map(|entry| entry.expect("read"));
        let mut files: Vec<_> = listed.map(|entry| entry.path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with(ending));
        files.sort();
        files
    }

    /// Files of a log that hold something.
    fn logged(&self, folder: &str) -> usize {
        let begins =
            |path: &PathBuf| std::fs::read(path).is_ok_and(|file| file.starts_with(b"FTLOGF01"));
        self.files(folder, "log").iter().filter(|path| begins(path)).count()
    }

    /// Packets that were lost for `cause`, of all that is listed.
    fn lost(&self, cause: &str) -> u64 {
        let listed = self.listed();
        listed.iter().flat_map(sources).filter_map(|source| source["lost"][cause].as_u64()).sum()
    }
}

fn flip(path: &Path, at: u64) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("there");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).expect("seekable");
    file.read_exact(&mut byte).expect("so long");
    file.seek(SeekFrom::Start(at)).expect("seekable");
    file.write_all(&[byte[0] ^ 1]).expect("ours");
}

#[test]
fn f06_a_call_that_cannot_be_taken_up_again_misses_its_end() {
    let mut bench = Bench::start("27200-27249");
    let call = bench.src(&["--duration", "120", "--streams", "2"]);
    until("packets on disk", PATIENCE, || (bench.durable() > 200).then_some(()));
    bench.power_off();
    std::thread::sleep(Duration::from_secs(1));
    bench.ports = "27250-27299";
    bench.power_on();
    let ended = bench.ended(1);
    hang_up(call);
    for source in sources(&ended[0]) {
        let lost = number(&source["lost"]["power"]);
        assert!(lost >= 50, "a second of 20 ms at least: {source}");
        assert_eq!(source["lost_range"]["power"], serde_json::json!([0, lost]), "{source}");
        let gap = source["gaps"].as_array().and_then(|gaps| gaps.last()).expect("a gap");
        assert_eq!((&gap["cause"], &gap["from"]), (&"power".into(), &source["last_arrival"]));
    }
    let streams = ended[0]["streams"].as_array().expect("a list");
    assert!(streams.iter().all(|stream| stream["verdict"] == "gaps"), "{}", ended[0]);
    bench.verified(&ended[0]);
    let id = ended[0]["id"].as_str().expect("an id");
    assert_eq!(bench.verb(&["verify", id, "--complete"]).status.code(), Some(1));
}

#[test]
fn f10_a_log_that_was_removed_is_missed_for_ever() {
    let mut bench = Bench::start("27300-27349");
    let call = call(&bench);
    bench.power_off();
    for path in bench.files("log/w0", ".log") {
        std::fs::remove_file(path).expect("ours");
    }
    bench.accuses(&["stored and lost", "BAD"], "before a start");
    bench.power_on();
    assert!(bench.told("alarm: worker 0"), "{}", bench.said());
    bench.accuses(&["stored and lost"], "while the call goes on");
    bench.stop();
    hang_up(call);
    bench.accuses(&["stored and lost", "BAD"], "when all is sealed");
}

#[test]
fn f10_a_bit_that_flips_in_the_log_is_damage_and_not_the_networks_fault() {
    let mut bench = Bench::start("27350-27399");
    let call = call(&bench);
    bench.power_off();
    let file = bench.files("log/w0", ".log").swap_remove(0);
    // In the payload of a group that was synced long ago.
    let bytes = std::fs::read(&file).expect("there");
    let group = bytes.windows(8).enumerate().filter(|(_, window)| *window == b"FTGROUP1").nth(20);
    flip(&file, group.expect("two seconds of groups").0 as u64 + 200);
    bench.accuses(&["stored and lost", "no valid commit group"], "before a start");
    let damaged = bench.lost("damage");
    assert!(damaged > 0, "{:?}", bench.listed());
    bench.power_on();
    bench.stop();
    hang_up(call);
    bench.accuses(&["stored and lost", "no valid commit group"], "when all is sealed");
    assert_eq!((bench.lost("damage"), bench.lost("net")), (damaged, 0));
}

#[test]
fn f18_segments_that_were_removed_are_missed_for_ever() {
    let mut bench = Bench::start("27400-27449");
    let call = call(&bench);
    bench.stop();
    hang_up(call);
    assert_eq!(bench.verify_all().0, Some(0), "{}", bench.verify_all().1);
    std::fs::remove_dir_all(bench.folder.join("store/segments")).expect("ours");
    bench.accuses(&["BAD"], "before a start");
    bench.power_on();
    let second = bench.src(&["--duration", "2"]);
    assert!(second.wait_with_output().expect("ours").status.success());
    bench.accuses(&["stored and lost", "BAD"], "after a start");
    bench.stop();
    let (_, said) = bench.verify_all();
    bench.accuses(&["stored and lost", "BAD"], "after a stop");
    // The one that came later is none of it.
    assert!(said.lines().any(|line| line.contains(" ok ")), "{said}");
}

#[test]
fn f19_packets_without_a_recording_tell_of_a_journal_that_was_cut() {
    let mut bench = Bench::start("27450-27499");
    for _ in 0..2 {
        let call = bench.src(&["--duration", "1"]);
        assert!(call.wait_with_output().expect("ours").status.success());
    }
    bench.power_off();
    let listed = bench.listed().len();
    assert_eq!(listed, 2);
    // The last one that holds anything of a call, before the second of them.
    let calls = bench.files("journal", ".journal").into_iter().rev();
    let opened = |path: &PathBuf| {
        let bytes = std::fs::read(path).expect("there");
        let at = bytes.windows(17).rposition(|window| window == b"\"entry\":\"opened\",")?;
        Some((path.clone(), at))
    };
    let (path, at) = calls.into_iter().find_map(|path| opened(&path)).expect("two calls");
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("ours");
    file.set_len(at as u64).expect("ours");
    drop(file);
    assert_eq!(bench.listed().len(), 1, "the acceptance of the second is gone");
    bench.accuses(&["packets of no recording that the journal knows"], "cut");
}

#[test]
fn f18_a_journal_of_two_stores_is_refused() {
    let mut bench = Bench::start("27500-27549");
    let other = Bench::start("27550-27599");
    for bench in [&bench, &other] {
        let call = bench.src(&["--duration", "1"]);
        assert!(call.wait_with_output().expect("ours").status.success());
    }
    bench.stop();
    let foreign = other.files("journal", ".journal").pop().expect("a journal");
    std::fs::copy(&foreign, bench.folder.join("store/journal/00000099.journal")).expect("ours");
    let (code, said) = bench.verify_all();
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("was written for the store"), "{said}");
    let mut command = super::command(&bench.folder, bench.port);
    let refused = command.output().expect("the binary is built");
    assert_eq!(refused.status.code(), Some(74), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("was written for the store"));
}

#[test]
fn f06_calls_that_were_over_miss_nothing_after_any_end() {
    let mut bench = Bench::start("27600-27649");
    let over = bench.src(&["--duration", "1"]);
    assert!(over.wait_with_output().expect("ours").status.success());
    bench.ended(1);
    let complete = |bench: &Bench, when: &str| {
        for recording in bench.listed() {
            let lost: Vec<_> = sources(&recording).map(|source| source["lost"].clone()).collect();
            assert!(lost.iter().all(|lost| *lost == serde_json::json!({})), "{when}: {lost:?}");
        }
        assert_eq!(bench.verify_all().0, Some(0), "{when}");
    };
    // An end in order: nothing that was up or over misses anything.
    let up = bench.src(&["--duration", "60"]);
    until("a second call", PATIENCE, || (bench.listed().len() == 2).then_some(()));
    until("packets on disk", PATIENCE, || (bench.durable() > 200).then_some(()));
    bench.stop();
    hang_up(up);
    bench.power_on();
    bench.ended(2);
    complete(&bench, "ended in order");
    // A cut a second after a BYE.
    let over = bench.src(&["--duration", "1"]);
    assert!(over.wait_with_output().expect("ours").status.success());
    std::thread::sleep(Duration::from_secs(1));
    bench.power_off();
    complete(&bench, "cut");
    bench.power_on();
    bench.ended(3);
    complete(&bench, "begun again");
}

#[test]
fn f10_a_segment_that_is_gone_is_damage_to_whoever_lists_or_exports() {
    let mut bench = Bench::start("27650-27699");
    let over = bench.src(&["--duration", "2"]);
    assert!(over.wait_with_output().expect("ours").status.success());
    bench.ended(1);
    bench.stop();
    let id = bench.listed()[0]["id"].as_str().expect("an id").to_owned();
    for path in bench.files("segments", ".seg") {
        std::fs::remove_file(path).expect("ours");
    }
    for when in ["before a start", "after one"] {
        let listed = bench.listed();
        let verdicts = listed[0]["streams"].as_array().expect("a list").iter();
        for stream in verdicts {
            assert_ne!(stream["verdict"], "complete", "{when}: {}", listed[0]);
        }
        let out = bench.folder.join(when.replace(' ', "-"));
        let exported = bench.verb(&["export", &id, "-o", out.to_str().expect("UTF-8")]);
        assert_eq!(exported.status.code(), Some(1), "{when}");
        assert!(text(&exported.stderr).contains("not exported"), "{when}");
        bench.power_on();
        bench.stop();
    }
    bench.accuses(&["stored and lost", "BAD"], "at last");
}

#[test]
fn f06_what_a_worker_left_that_is_no_more_is_sealed() {
    let mut bench = Bench::start_with("27700-27749", 2);
    // One call ends before the cut, one goes on over it; each has a stream on either worker.
    let first = bench.src(&["--duration", "1", "--streams", "2", "--streams-per-call", "2"]);
    assert!(first.wait_with_output().expect("ours").status.success());
    let words = ["--duration", "120", "--streams", "2", "--streams-per-call", "2"];
    let call = bench.src(&words);
    until("both calls", PATIENCE, || (bench.listed().len() == 2).then_some(()));
    let before = bench.durable();
    until("packets on disk", PATIENCE, || (bench.durable() > before + 200).then_some(()));
    bench.power_off();
    assert_ne!(bench.logged("log/w1"), 0, "the second worker had something to do");
    bench.workers = 1;
    bench.power_on();
    until("what is left is sealed", PATIENCE, || (bench.logged("log/w1") == 0).then_some(()));
    let told = || bench.told("worker 1 is no more: what it left is sealed").then_some(());
    until("it is told", PATIENCE, told);
    let at = || bench.listed()[1]["durable_through"].as_str().map(str::to_owned);
    let then = at();
    until("the call goes on", PATIENCE, || (at() > then).then_some(()));
    bench.stop();
    hang_up(call);
    let listed = bench.listed();
    assert!(listed.iter().all(|one| one["seal"]["state"] == "sealed"), "{listed:?}");
    assert!(listed.iter().all(|one| one["durable_through"] == one["end"]), "{listed:?}");
    assert_eq!(bench.verify_all().0, Some(0), "{}", bench.verify_all().1);
    assert_eq!(bench.lost("damage"), 0);
}

#[test]
fn f19_behind_an_older_journal_no_stream_is_taken_for_another() {
    let mut bench = Bench::start("27750-27799");
    let call = |bench: &Bench, seconds: &str| {
        let sent = super::sent(bench.src(&["--duration", seconds, "--srtp", "none"]));
        number(&sent["sent"])
    };
    let journal = bench.folder.join("store/journal");
    let copy = |from: &Path, to: &Path| {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir_all(to).expect("ours");
        for file in std::fs::read_dir(from).expect("there") {
            let file = file.expect("read");
            std::fs::copy(file.path(), to.join(file.file_name())).expect("ours");
        }
    };
    call(&bench, "1");
    bench.stop();
    let older = bench.folder.join("older");
    copy(&journal, &older);
    bench.power_on();
    assert!(!bench.told("alarm"), "{}", bench.said());
    call(&bench, "4");
    bench.stop();
    copy(&older, &journal);
    bench.power_on();
    assert!(bench.told("alarm: the journal ends"), "{}", bench.said());
    // A start that takes no call: the next one finds nothing odd, and knows all the same.
    bench.stop();
    bench.power_on();
    assert!(!bench.told("alarm"), "{}", bench.said());
    let packets = call(&bench, "1");
    bench.stop();
    let recordings = bench.listed();
    let last = recordings.last().expect("the one just made");
    let stored: u64 = sources(last).map(|source| number(&source["packets"])).sum();
    assert_eq!(stored, packets, "its own, and no other's: {last}");
    bench.power_on();
    assert!(!bench.told("alarm"), "the journal is the newest again: {}", bench.said());
    bench.stop();
    bench.verified(last);
}
