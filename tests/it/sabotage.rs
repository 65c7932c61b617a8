//! Every deliberate defect, and the test that turns red for it. A defect that no test provokes proves nothing, and a
//! fault test without its defect may be one that cannot fail.
//!
//! This compares names only: that every defect of the enum has a row, and that the row's file has the test and names the defect. That
//! the test turns red is for the test itself to show, when it runs.

use std::path::Path;

/// The defect, the file of the test that provokes it, and that test's name.
const CONTROLS: [(&str, &str, &str); 21] = [
    ("SkipSync", MODEL, EVERY_DEFECT),
    ("AckBeforeSync", MODEL, EVERY_DEFECT),
    ("ForgetWord", MODEL, EVERY_DEFECT),
    ("TrustFailedSync", MODEL, EVERY_DEFECT),
    ("TrustPageCache", MODEL, EVERY_DEFECT),
    ("UnlinkFirst", MODEL, EVERY_DEFECT),
    ("MoveBeforeCopy", MODEL, EVERY_DEFECT),
    ("ForgetNotes", MODEL, EVERY_DEFECT),
    (
        "SkipBlockChecksum",
        "src/store/tests/damage.rs",
        "a_reader_that_trusts_its_blocks_hands_out_wrong_bytes",
    ),
    (
        "AgeByWallClock",
        "src/store/tests/remembering.rs",
        "forgetting_by_the_wall_clock_would_be_noticed",
    ),
    (
        "HangIndex",
        "src/store/tests/faults.rs",
        INDEX_STOPS_LEASING,
    ),
    (
        "HangClose",
        "tests/it/index_loss.rs",
        "a_worker_whose_index_hangs_in_its_close_ends_by_itself_and_loses_nothing",
    ),
    (
        "PanicIndex",
        "src/store/tests/faults.rs",
        INDEX_STOPS_LEASING,
    ),
    ("PanicLease", "tests/it/index_loss.rs", LOST_AT_A_LEASE),
    ("HangLease", "tests/it/index_loss.rs", LOST_AT_A_LEASE),
    (
        "PanicClose",
        "tests/it/index_loss.rs",
        "a_worker_whose_index_panics_in_its_close_ends_by_itself_and_loses_nothing",
    ),
    (
        "AnswerBeforeWrite",
        "tests/it/kill.rs",
        "the_account_sees_a_worker_that_says_yes_before_it_writes",
    ),
    (
        "DropOnUnauthorized",
        "tests/it/main_job.rs",
        "the_comparison_sees_a_worker_that_drops_what_met_an_expired_token",
    ),
    (
        "CountOutageAsFailure",
        "tests/it/platform_faults.rs",
        "an_outage_that_costs_retries_is_noticed",
    ),
    (
        "LogHeader",
        "tests/it/canary.rs",
        "a_build_that_logs_one_header_is_found_out",
    ),
    (
        "HoardAnswers",
        "tests/it/hostile.rs",
        "a_worker_that_keeps_what_a_server_says_is_noticed",
    ),
];

const MODEL: &str = "src/store/tests/model.rs";
const EVERY_DEFECT: &str = "every_defect_of_durability_turns_the_model_test_red";
const LOST_AT_A_LEASE: &str =
    "a_worker_whose_index_is_lost_at_a_lease_ends_by_itself_and_the_next_one_delivers";
const INDEX_STOPS_LEASING: &str = "an_index_that_panics_or_hangs_stops_leasing_and_nothing_else";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_deliberate_defect_is_named_by_a_test_that_is_there() {
    let source = read("src/sabotage.rs");
    let body = source
        .split("pub enum Sabotage {")
        .nth(1)
        .expect("the enum")
        .split('}')
        .next();
    let defects = body.expect("its end").lines().filter_map(|line| {
        let name = line.trim().strip_suffix(',')?;
        name.chars().all(char::is_alphanumeric).then_some(name)
    });
    let mut named: Vec<&str> = CONTROLS.iter().map(|(defect, ..)| *defect).collect();
    let mut defects: Vec<&str> = defects.collect();
    defects.sort_unstable();
    named.sort_unstable();
    assert_eq!(defects, named);
    for (defect, file, test) in CONTROLS {
        let text = read(file);
        assert!(text.contains(defect), "{file} does not provoke {defect}");
        assert!(text.contains(test), "{file} has no test {test}");
    }
}
