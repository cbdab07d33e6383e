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
    // Below the first empty line is the map.
    let lines = said.lines().take_while(|line| !line.is_empty());
    let first: Vec<_> = lines.filter_map(|line| line.split("  ").next()).collect();
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
        "placement",
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
fn faults_of_roles_are_told_with_line_and_caret() {
    let text = "[access]\noperator = [\"kim\", \"a:b\"]\nlistner = [\"kim\"]\n\
                auditor = \"kim\"\ncompliance = [1001]\nreason = \"always\"\n";
    let path = file("access", text);
    let output = floortape(&["check", "-c", &path.display().to_string()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for expected in [
        ":2:12: error: access.operator: expected a user's name or number, or a group",
        "found \"a:b\"",
        ":3:1: error: access.listner: unknown key",
        "fix: did you mean \"listener\"?",
        ":4:11: error: access.auditor: ",
        ":5:15: error: access.compliance: ",
        "fix: write a list of users by name or number and of groups",
        ":6:10: error: access.reason: unknown variant `always`",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    std::fs::remove_file(path).expect("ours");
    let good = ["access.listener=[\"kim\", \"1001\", \"@desk\"]", "access.reason=listen"];
    let output = floortape(&["check", "--set", good[0], "--set", good[1]]);
    assert!(!stderr(&output).contains("access"), "{}", stderr(&output));
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
        "--set",
        "cpu.workers=0",
    ]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("32000 streams × 3600 s need a ring of 1142"), "{said}");
    assert!(said.contains("half of the free memory is"), "{said}");
    assert!(said.contains("cores 1000-1003 are not among those that we may use, "), "{said}");
}

/// Cores that this test may pin to.
fn cores() -> Vec<u16> {
    floortape::host::affinity::permitted()
}

#[test]
fn check_shows_which_core_does_what() {
    let core = *cores().last().expect("one core");
    let rx = format!("cpu.rx=\"{core}\"");
    let sets = ["--set", "store.reserve_minutes=0", "--set", "cpu.workers=0", "--set", &rx];
    let output = floortape(&[&["check"][..], &sets].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(said.contains(&format!("placement      ok: 1 worker on core {core}")), "{said}");
    let row = said.lines().find(|line| line.contains("worker 0")).expect("a row");
    assert!(row.starts_with(&format!("{core} ")), "{said}");
    assert_eq!(row.contains("control"), cores().len() == 1, "{said}");
    for head in ["CORE", "WORKER", "CARD"] {
        assert!(said.lines().any(|line| line.starts_with(head)), "{head} is not in {said}");
    }
    assert!(said.lines().any(|line| line.starts_with("lo ") && line.contains("virtual")), "{said}");

    let output = floortape(&[&["check", "--json"][..], &sets].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((&found["ok"], &found["faults"]), (&true.into(), &serde_json::json!([])));
    let worker = &found["placement"]["workers"][0];
    assert_eq!((&worker["core"], &worker["streams"]), (&core.into(), &64.into()));
    assert_eq!(worker["packets_per_s"], 3_200);
    assert_eq!(worker["slots"], serde_json::json!({"first": 0, "step": 1, "count": 80}));
    let own = found["placement"]["cores"].as_array().expect("a list");
    let own = own.iter().find(|row| row["core"] == core).expect("its row");
    assert_eq!(own["runs"][0], "worker 0");
    assert_eq!(found["placement"]["cards"][0]["name"], "lo");
    let names = found["checks"].as_array().expect("a list");
    assert!(names.iter().any(|check| check["name"] == "store" && check["ok"] == true));
}

#[test]
fn faults_are_json_where_that_is_asked_for() {
    let output = floortape(&["check", "--json", "--set", "cpu.rx=2-1", "--set", "cpu.workers=300"]);
    assert_eq!(output.status.code(), Some(78));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(found["ok"], false);
    let keys: Vec<_> =
        found["faults"].as_array().expect("a list").iter().map(|f| &f["key"]).collect();
    assert!(keys.contains(&&"cpu.rx".into()) && keys.contains(&&"cpu.workers".into()), "{keys:?}");
    assert_eq!(found["faults"][0]["line"], 1);
}

#[test]
fn contradictions_of_placement_are_told_at_their_place() {
    let core = *cores().last().expect("one core");
    let path = file("twice", &format!("[cpu]\nworkers = 2\nrx = \"{core}\"\nspool = \"{core}\"\n"));
    let output = floortape(&["check", "-c", &path.display().to_string()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for expected in [
        ":2:11: error: cpu.workers: 2 workers on 1 core of cpu.rx: each worker needs a core of its own",
        &format!(":4:9: error: cpu.spool: core {core} is in cpu.rx as well"),
        "    |         ^",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    // A later file stands above an earlier one, key by key.
    let above = file("above", "[cpu]\nworkers = 1\nspool = \"\"\n");
    let (first, second) = (path.display().to_string(), above.display().to_string());
    let arguments = ["check", "-c", &first, "-c", &second, "--set", "store.reserve_minutes=0"];
    let output = floortape(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains(&format!("on core {core}")), "{}", stdout(&output));
    std::fs::remove_file(path).expect("ours");
    std::fs::remove_file(above).expect("ours");
}

#[test]
fn more_than_is_measured_is_a_warning_and_more_than_can_be_is_a_fault() {
    let sets = ["--set", "media.ports=2000-65535", "--set", "store.ring_seconds=1"];
    let sets = [&sets[..], &["--set", "store.reserve_minutes=0"]].concat();
    let output = floortape(&[&["check", "--set", "media.streams_max=2500"][..], &sets].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(
        said.contains("warning: cpu.workers: 2500 streams × 50 packets/s ÷ 1 worker = 125000"),
        "{said}"
    );
    assert!(said.contains("  fix: set cpu.workers to 2"), "{said}");
    let output = floortape(&[&["check", "--set", "media.streams_max=10001"][..], &sets].concat());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("--set media.streams_max=10001:1:21: error: media.streams_max: 10001"),
        "{said}"
    );
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
