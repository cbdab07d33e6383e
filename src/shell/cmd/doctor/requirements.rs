//! The table: requirements and use cases of RFC 6341 against the tests of this repository. A row is
//! met when its acceptance test is there and drives the real server, or when what it asks is a rule
//! that a test of the rule shows whole. It changes in the commit that meets a row.

/// One requirement or use case.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// `REQ-001` or `UC-1`.
    pub(super) id: &'static str,
    /// What it asks, in short.
    pub(super) asks: &'static str,
    /// Tests, `FILE::NAME`.
    pub(super) tests: &'static [&'static str],
    /// What is missing, area first.
    pub(super) open: Option<&'static str>,
}

const fn met(id: &'static str, asks: &'static str, tests: &'static [&'static str]) -> Row {
    Row { id, asks, tests, open: None }
}

const fn open(
    id: &'static str,
    asks: &'static str,
    tests: &'static [&'static str],
    missing: &'static str,
) -> Row {
    Row { id, asks, tests, open: Some(missing) }
}

const STEPS: &str =
    "tests/metadata.rs::a_call_told_in_steps_by_two_clients_is_one_call_with_its_speakers";
const TIMER: &str = "tests/flows.rs::either_side_refreshes_and_the_timer_outlives_control";
const EXPIRED: &str = "tests/flows.rs::f51_a_client_that_stops_refreshing_is_kept_while_it_sends";
const SNAPSHOT: &str = "tests/flows.rs::a_snapshot_is_asked_for_without_base_and_after_a_restart";
const TLS: &str = "tests/tls.rs::a_call_over_tls_is_recorded_and_says_how_it_was_protected";
const IDLE: &str =
    "tests/idle.rs::uc8_two_thousand_idle_connections_are_usable_again_after_control_died";
const PAUSES: &str = "tests/lines.rs::f60_of_many_pauses_under_load_nothing_inside_is_stored_and_nothing_outside_is_lost";
const TRANSFER: &str = "tests/policy.rs::f60_a_call_that_is_transferred_to_a_private_party_rests_until_that_one_has_left";
const DEMO: &str = "tests/cli.rs::demo_finds_its_own_loss_and_leaves_a_recording_that_verifies";
const SHOWN: &str =
    "src/shell/cmd/tests.rs::people_are_the_same_in_show_in_an_export_and_from_the_catalogue";
const PARTS: &str =
    "src/shell/cmd/tests.rs::a_session_is_shown_over_all_its_recordings_and_clients";

/// All rows, in order.
pub(super) const ROWS: &[Row] = &[
    met(
        "REQ-001",
        "SIP sets up, keeps up and ends the RS",
        &[
            TIMER,
            EXPIRED,
            "tests/flows.rs::req001_an_operator_starts_a_recording_by_calling_its_src",
        ],
    ),
    met(
        "REQ-002",
        "all CSs recorded, start to end",
        &[DEMO, "tests/checker.rs::a_reader_that_shares_no_code_finds_the_same_packets"],
    ),
    met(
        "REQ-003",
        "selected CSs, by policy",
        &[
            "tests/policy.rs::req003_listed_records_the_calls_of_one_extension_and_no_others",
            "tests/policy.rs::req003_lines_are_chosen_by_label_media_codec_and_peer",
            "tests/policy.rs::only_peers_record_where_the_policy_says_so_and_a_reload_makes_one",
            TRANSFER,
        ],
    ),
    met(
        "REQ-004",
        "parts of a CS",
        &[
            "src/plane/worker/stream_tests.rs::f60_a_packet_is_stored_if_it_arrived_before_the_pause",
            PAUSES,
        ],
    ),
    open(
        "REQ-005",
        "no media lost by preparing, no harm to the CS",
        &[
            "src/plane/control/tests.rs::answer_waits_for_media_and_journal",
            "tests/floor.rs::req005_the_first_packet_in_the_instant_of_the_200_is_stored",
        ],
        "client: set-up time of a call with and without recording",
    ),
    met(
        "REQ-006",
        "IVR sessions",
        &[
            STEPS,
            "src/store/metadata/tests.rs::extensions_are_replaced_by_name_and_place_and_all_versions_stay",
        ],
    ),
    met(
        "REQ-007",
        "voice, DTMF, video, real-time text",
        &[
            "src/store/ledger/dtmf.rs::updates_and_repeated_ends_are_one_digit_in_any_order",
            "src/store/ledger/text.rs::one_of_three_lost_is_all_there_in_any_order",
            "src/store/export/h264.rs::it_begins_at_the_first_picture_that_can_be_decoded",
        ],
    ),
    met(
        "REQ-008",
        "audio mixed from several CSs",
        &[
            "src/store/metadata/tests.rs::a_turrets_stream_belongs_to_both_its_calls",
            "tests/floor.rs::req008_two_calls_mixed_on_a_turrets_line_are_found_by_either",
        ],
    ),
    open(
        "REQ-009",
        "audio mixed from the parties of one CS",
        &[
            "src/store/metadata/tests.rs::the_third_party_of_a_conference_comes_with_a_longer_list_of_session_ids",
        ],
        "media: contributing sources by packet range and CNAME",
    ),
    met(
        "REQ-010",
        "several streams for one CS",
        &[
            "src/proto/session/tests.rs::every_line_is_answered_in_place_with_its_transport",
            "tests/lines.rs::req010_two_audio_and_two_video_lines_are_recorded_each_with_its_codec",
        ],
    ),
    met(
        "REQ-011",
        "pause and resume",
        &[
            "src/plane/control/tests.rs::a_pause_reaches_media_before_its_200_and_the_journal_keeps_the_instant",
            "tests/flows.rs::req011_an_operator_pauses_and_resumes_and_nothing_between_is_stored",
        ],
    ),
    met("REQ-012", "metadata: media, identities of parties", &[STEPS, SHOWN]),
    met(
        "REQ-013",
        "RS media tied to participants",
        &[
            STEPS,
            "tests/corpus.rs::published_dialogs_give_the_speakers_of_every_moment",
            "src/store/metadata/tests.rs::contradictions_between_metadata_and_sdp_are_told_and_nobody_is_guessed",
        ],
    ),
    met(
        "REQ-014",
        "metadata independent of the transport",
        &[STEPS, "tests/corpus.rs::published_documents_hold_what_their_sections_say"],
    ),
    open(
        "REQ-015",
        "recording can be stopped",
        &[
            "src/plane/control/tests.rs::the_end_is_journaled_before_bye_is_answered",
            "src/plane/control/tests.rs::a_stop_says_bye_with_a_reason",
            "src/plane/control/tests.rs::a_removed_line_is_closed_and_its_slot_returns",
            "tests/flows.rs::req015_an_operator_stops_a_recording_with_a_reason",
            "tests/flows.rs::req015_an_operator_ends_one_line_by_port_0_and_it_stays_ended",
        ],
        "client: recording-aware UA that wishes it in mid-call",
    ),
    open(
        "REQ-016",
        "a recording-aware UA's wish at call set-up",
        &[],
        "client: recording-aware UA",
    ),
    open("REQ-017", "its wish in mid-call", &[], "client: recording-aware UA"),
    open("REQ-018", "tones and announcements", &[], "client: recording-aware UA"),
    open("REQ-019", "recording state shown to it", &[], "client: recording-aware UA"),
    met(
        "REQ-020",
        "metadata in steps",
        &[
            STEPS,
            SNAPSHOT,
            "src/store/metadata/tests_steps.rs::told_in_steps_or_at_once_the_state_is_the_same",
        ],
    ),
    open(
        "REQ-021",
        "high availability",
        &[SNAPSHOT, PARTS],
        "client: an SRC that goes to a second SRS",
    ),
    open(
        "REQ-022",
        "media and metadata aligned in time",
        &[],
        "time: the SRC's clock against ours",
    ),
    met(
        "REQ-023",
        "streams aligned with each other",
        &[
            "src/shell/cmd/export/tests.rs::two_clicks_of_one_instant_are_within_20_ms_after_an_hour_also_without_reports",
        ],
    ),
    met(
        "REQ-024",
        "wall-clock time of recording and its controls",
        &[
            "src/plane/control/tests.rs::a_pause_reaches_media_before_its_200_and_the_journal_keeps_the_instant",
            "tests/lines.rs::req024_what_was_done_to_a_line_is_known_with_its_rtp_time",
        ],
    ),
    met(
        "REQ-025",
        "the SRS authenticates the SRC",
        &[
            "tests/tls.rs::f62_missing_wrong_expired_and_revoked_certificates_are_refused_each_with_its_reason",
            "tests/tls.rs::f61_a_recording_belongs_to_the_identity_that_started_it",
            "tests/digest.rs::a_client_that_knows_the_password_is_recorded_and_others_are_not",
        ],
    ),
    met(
        "REQ-026",
        "the SRC authenticates the SRS",
        &["tests/tls.rs::req026_a_caller_says_nothing_to_a_server_that_it_cannot_verify"],
    ),
    met(
        "REQ-027",
        "metadata as the SRC sent it",
        &["tests/tls.rs::req027_a_changed_record_ends_the_connection_and_nothing_of_it_is_taken"],
    ),
    met(
        "REQ-028",
        "media as the SRC sent it",
        &[
            "tests/srtp.rs::both_engines_read_each_others_srtp_over_three_roll_overs",
            "tests/srtp.rs::loss_reorder_and_repetition_across_the_roll_over_are_all_told_apart",
            "src/proto/srtp/context.rs::every_flipped_bit_is_found",
            "src/proto/srtp/context.rs::published_packets_of_aes_192_and_aes_256",
        ],
    ),
    met(
        "REQ-029",
        "metadata kept secret in transit",
        &[
            TLS,
            "tests/policy.rs::req029_over_tls_no_address_is_seen_on_the_wire_and_in_clear_no_metadata_is_taken",
        ],
    ),
    open(
        "REQ-030",
        "confidential RS",
        &[
            "src/proto/session/tests.rs::plain_rtp_follows_the_policy_and_crypto_on_it_is_no_srtp",
            "src/proto/session/tests.rs::every_usual_suite_is_taken_with_its_spelling_and_f8_where_it_is_named",
            "src/proto/session/tests.rs::what_is_not_encrypted_is_taken_where_the_policy_says_so_and_answered_alike",
        ],
        "security: DTLS-SRTP",
    ),
    met(
        "REQ-031",
        "several streams of one media type",
        &[
            "src/proto/session/tests.rs::every_line_is_answered_in_place_with_its_transport",
            "tests/lines.rs::req031_sixteen_audio_lines_are_recorded_each_for_itself",
        ],
    ),
    met(
        "UC-1",
        "full-time recording",
        &[DEMO, "tests/floor.rs::uc1_a_thousand_calls_are_a_thousand_recordings"],
    ),
    met(
        "UC-2",
        "selective recording",
        &[
            "tests/policy.rs::uc2_of_three_calls_the_private_one_leaves_nothing_but_a_count",
            TRANSFER,
            "src/plane/control/tests_policy.rs::of_two_calls_the_private_one_gets_port_0_and_its_names_are_kept_nowhere",
        ],
    ),
    met("UC-3", "start and stop in mid-call, several RSs to a CS", &[STEPS, PARTS]),
    met(
        "UC-4",
        "persistent recording",
        &[
            TIMER,
            "src/store/export/placement.rs::three_silent_days_are_three_days",
            "tests/floor.rs::uc4_of_two_hundred_calls_on_one_rs_each_is_retrieved_alone",
        ],
    ),
    met(
        "UC-5",
        "real-time control",
        &[
            PAUSES,
            "tests/flows.rs::req011_an_operator_pauses_and_resumes_and_nothing_between_is_stored",
        ],
    ),
    met("UC-6", "IVR", &[STEPS]),
    met(
        "UC-7",
        "mobility",
        &[
            "tests/addresses.rs::uc7_an_src_behind_address_translation_is_recorded_and_nobody_else",
            "tests/addresses.rs::uc7_reports_follow_srtp_through_address_translation",
        ],
    ),
    met("UC-8", "distributed or central", &[STEPS, PARTS, IDLE]),
    met(
        "UC-9",
        "complex calls",
        &[
            "tests/corpus.rs::published_dialogs_give_the_speakers_of_every_moment",
            "tests/floor.rs::uc9_hold_consultation_and_transfer_are_one_chain",
        ],
    ),
    open(
        "UC-10",
        "high availability",
        &["tests/keeper.rs::f03_a_new_keeper_takes_over_from_roles_that_went_on"],
        "client: an SRC that goes to a second SRS, or ends the call",
    ),
    open("UC-11", "multichannel, multimedia", &[], "time: audio, video and text in step"),
    met(
        "UC-12",
        "live processing",
        &[
            "tests/tap.rs::what_is_tapped_is_what_is_exported_and_comes_within_half_a_second",
            "tests/tap.rs::a_reader_that_stands_still_costs_itself",
            "tests/tap.rs::nothing_of_a_pause_is_heard_and_that_it_is_one_is_told",
        ],
    ),
];
