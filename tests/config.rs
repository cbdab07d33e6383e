//! `floortape check` and the command line, with the real binary.

use std::path::PathBuf;
use std::process::{Command, Output};

fn floortape(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_floortape")).args(arguments).output().expect("it is built")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn file(name: &str, text: &str) -> PathBuf {
    let name = format!("floortape-config-{}-{name}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).expect("a temp file");
    path
}

#[test]
fn f75_check_says_one_line_about_each_limit() {
    let output = floortape(&["check", "--set", "store.reserve_minutes=0"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    let first: Vec<_> = said.lines().filter_map(|line| line.split("  ").next()).collect();
    let expected = [
        "configuration",
        "store",
        "disk",
        "addresses",
        "io_uring",
        "steering",
        "locked memory",
        "descriptors",
        "direct writes",
    ];
    assert_eq!(first, expected, "{said}");
    assert!(output.stderr.is_empty(), "nothing to complain about: {}", stderr(&output));
}

#[test]
fn the_shipped_file_is_a_valid_configuration() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/appliance/floortape.toml");
    let output = floortape(&["check", "-c", path, "--set", "store.reserve_minutes=0"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn all_faults_are_told_at_once_with_line_caret_why_and_fix() {
    let text = "[media]\nports = \"20000-20009\"\nengine = \"fast\"\n\n[sip]\n\tudp = \"*:5060\"\n";
    let path = file("all", text);
    let output = floortape(&["check", "-c", &path.display().to_string(), "--set", "cpu.rx=z"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for expected in [
        ":2:9: error: media.ports: 64 streams need 64",
        ":3:10: error: media.engine: unknown variant `fast`",
        "  3 | engine = \"fast\"\n    |          ^^^^^^\n  fix: write \"auto\"",
        ":6:8: error: sip.udp:",
        // The caret line repeats the tab.
        "    | \t      ^^^^^^^^\n",
        "--set cpu.rx=z:1:10: error: cpu.rx:",
        "4 faults in the configuration",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    std::fs::remove_file(path).expect("ours");
}

#[test]
fn faults_of_the_policy_are_told_with_line_and_caret() {
    let text = "[[peers]]\nname = \"sbc-1\"\nmatch = \"192.0.2.7\"\n\
                [policy]\nrecord = \"some\"\nsecure_signalling = true\n\
                [[policy.rules]]\nname = \"one\"\nrecord = false\npeer = [\"sbc-1\", \"sbc-2\"]\n\
                [[policy.rules]]\nname = \"two\"\nrecord = true\n\
                [[policy.rules]]\nname = \"one\"\nrecord = true\naor = [\"sip:*@x\", \"sip:a?@x\"]\n\
                media = [\"fax\"]\nlabel = []\ncodecs = [\"PCMU\"]\n\
                [[policy.rules]]\nname = \"a\\\"b\"\nlabel = [\"1\"]\n";
    let path = file("policy", text);
    let output = floortape(&["check", "-c", &path.display().to_string()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for expected in [
        ":5:10: error: policy.record: unknown variant `some`",
        ":6:21: error: policy.secure_signalling: nothing listens for TLS",
        ":10:18: error: policy.rules.peer: no [[peers]] has the name \"sbc-2\"",
        "  10 | peer = [\"sbc-1\", \"sbc-2\"]\n     |                  ^^^^^^^\n",
        "fix: did you mean \"sbc-1\"?",
        ":11:1: error: policy.rules: a rule without a condition",
        ":15:8: error: policy.rules.name: another rule is called \"one\" too",
        ":17:19: error: policy.rules.aor: expected an address such as",
        "found \"sip:a?@x\"",
        ":18:10: error: policy.rules.media: unknown variant `fax`",
        ":19:9: error: policy.rules.label: expected at least one value",
        ":20:1: error: policy.rules.codecs: unknown key",
        "fix: did you mean \"codec\"?",
        "error: policy.rules.record: missing key",
        ":22:8: error: policy.rules.name: expected a name without quotes",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    std::fs::remove_file(path).expect("ours");
    for (set, why) in [
        ("policy.record=listed", "no rule says what is recorded"),
        ("policy.sources=peers", "there are no [[peers]]"),
        ("policy.sorces=peers", "did you mean \"sources\"?"),
    ] {
        let output = floortape(&["check", "--set", set]);
        assert_eq!(output.status.code(), Some(78));
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    }
}

#[test]
fn a_missing_file_and_a_broken_one_end_with_78() {
    let output = floortape(&["check", "-c", "/nowhere/f.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("/nowhere/f.toml: error: cannot read"), "{}", stderr(&output));
    let path = file("broken", "[sip\nudp = [\n");
    let output = floortape(&["check", "-c", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains(":1:5: error: "), "{}", stderr(&output));
    std::fs::remove_file(path).expect("ours");
}

#[test]
fn memory_cores_and_descriptors_are_checked_with_numbers() {
    let output = floortape(&[
        "check",
        "--set",
        "media.streams_max=32000",
        "--set",
        "media.ports=1024-65535",
        "--set",
        "store.ring_seconds=3600",
        "--set",
        "cpu.rx=1000-1003",
    ]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("32000 streams × 3600 s need a ring of 1142"), "{said}");
    assert!(said.contains("half of the free memory is"), "{said}");
    assert!(said.contains("cores [1000, 1001, 1002, 1003] are not among"), "{said}");
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for wrong in [&["nonsense"][..], &[], &["check", "--loud"], &["serve", "-c"]] {
        assert_eq!(floortape(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let help = floortape(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("serve"));
}
