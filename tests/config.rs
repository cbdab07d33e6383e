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
