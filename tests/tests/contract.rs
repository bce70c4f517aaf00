//! The contract: what every backend does alike, each shown against its real server.
//!
//! A group of properties is one test, which starts a server of its own and checks them one after the other, naming the
//! one that it is at; so the suite runs as well in one process as in one process for each test.

#[path = "contract/content.rs"]
mod content;
#[path = "contract/cut.rs"]
mod cut;
#[path = "contract/failing.rs"]
mod failing;
#[path = "contract/frugal.rs"]
mod frugal;
#[path = "contract/listing.rs"]
mod listing;
#[path = "contract/naming.rs"]
mod naming;
#[path = "contract/reading.rs"]
mod reading;
#[path = "contract/replacing.rs"]
mod replacing;
#[path = "contract/subject.rs"]
mod subject;
#[path = "contract/taken_up.rs"]
mod taken_up;
#[path = "contract/unfinished.rs"]
mod unfinished;
#[path = "contract/writing.rs"]
mod writing;

use subject::Subject;

/// Runs one property after the other, and says which it was that did not hold.
macro_rules! properties {
    ($subject:expr, $($module:ident::$property:ident),* $(,)?) => {{
        let subject = $subject;
        $(
            println!("{}: {}", subject.name(), stringify!($property));
            $module::$property(&subject).await;
        )*
    }};
}

/// Makes the tests of one backend.
macro_rules! contract {
    ($($backend:ident),* $(,)?) => {$(
        mod $backend {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn lists_what_is_there() {
                properties!(
                    Subject::$backend().await,
                    listing::an_empty_root_lists_as_empty,
                    listing::odd_names_survive,
                    listing::a_line_break_makes_no_second_name,
                    listing::a_name_that_is_not_text_spoils_nothing,
                    listing::directories_nest_and_may_be_empty,
                    listing::what_is_no_file_is_told_as_what_it_is,
                    listing::links_tell_where_they_point,
                    listing::a_listing_and_a_look_agree,
                    listing::what_is_missing_is_absent,
                    listing::what_may_not_be_listed_is_never_empty,
                    listing::ten_thousand_names_are_all_listed,
                );
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn reads_the_version_that_was_asked_for() {
                properties!(
                    Subject::$backend().await,
                    reading::every_range_gives_its_bytes,
                    reading::an_empty_file_is_found,
                    reading::many_readers_read_at_once,
                    reading::a_changed_file_is_not_read_as_the_old_one,
                    reading::a_file_of_the_same_size_and_another_second_is_another_version,
                    reading::a_missing_file_is_absent,
                    reading::bytes_past_four_gigabytes_are_reached,
                );
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn fails_honestly() {
                properties!(
                    Subject::$backend().await,
                    failing::wrong_credentials_are_named,
                    failing::a_source_that_does_not_exist_is_named,
                    failing::a_server_that_says_nothing_is_left_by_the_deadline,
                    failing::a_killed_server_is_unreachable_and_comes_back,
                );
            }
        }
    )*};
}

contract!(local, smb, s3, webdav, webdav_without_etags, sftp, ftp, azblob, gcs);

/// Makes the tests of one backend that is written to through the trait.
macro_rules! writing_contract {
    ($($backend:ident),* $(,)?) => {mod writes {$(
        mod $backend {
            use super::super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn puts_what_it_is_given() {
                properties!(
                    Subject::$backend().await,
                    writing::every_size_is_put_and_listed_as_it_was_put,
                    writing::a_large_object_is_never_whole_in_memory,
                    writing::odd_names_are_put,
                    writing::attributes_are_kept_where_they_can_be,
                );
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn replaces_what_was_expected() {
                properties!(
                    Subject::$backend().await,
                    replacing::a_put_replaces_only_what_was_expected,
                    replacing::a_change_on_the_way_is_not_lost,
                    replacing::readers_see_the_old_or_the_new,
                    replacing::of_many_that_make_a_name_one_wins,
                );
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn changes_names() {
                properties!(
                    Subject::$backend().await,
                    naming::nothing_is_put_into_a_directory_that_is_not_there,
                    naming::directories_are_made_and_removed,
                    naming::a_directory_that_is_to_stay_stays_when_the_last_thing_in_it_goes,
                    naming::a_file_is_removed_as_it_was_expected,
                    naming::names_are_changed,
                    naming::a_directory_is_renamed_while_what_is_in_it_is_looked_at,
                );
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn leaves_nothing_half_done() {
                properties!(
                    Subject::$backend().await,
                    unfinished::a_put_that_is_dropped_leaves_nothing,
                    unfinished::a_put_that_is_dropped_at_any_moment_leaves_nothing,
                    unfinished::a_directory_is_renamed_when_a_put_into_it_was_dropped,
                    unfinished::a_full_disk_is_called_full,
                    unfinished::a_server_killed_in_the_middle_loses_nothing,
                );
            }
        }
    )*}};
}

writing_contract!(smb, s3, webdav, webdav_without_etags, sftp, ftp, azblob, gcs);

/// Makes the test of one backend whose line is cut.
macro_rules! cut_contract {
    ($($backend:ident),* $(,)?) => {mod is_cut_off {$(
        mod $backend {
            use super::super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn leaves_all_or_nothing() {
                properties!(
                    cut::Line::$backend().await,
                    cut::a_put_whose_line_is_cut_at_any_byte_leaves_all_or_nothing,
                );
            }
        }
    )*}};
}

cut_contract!(smb, s3, webdav, sftp, azblob, gcs);

/// Makes the tests of one backend that writes large files from front to back and goes on with them.
macro_rules! taking_up_contract {
    ($($backend:ident),* $(,)?) => {mod takes_up {$(
        mod $backend {
            use super::super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn goes_on_where_it_stopped() {
                properties!(
                    taken_up::Workplace::$backend().await,
                    taken_up::a_put_that_was_dropped_goes_on,
                    taken_up::a_put_goes_on_after_the_server_was_killed,
                    taken_up::what_is_put_in_the_end_is_what_is_at_hand_then,
                    taken_up::a_put_that_was_sent_to_its_end_only_gets_its_name,
                );
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn begins_anew_where_nothing_can_be_gone_on_with() {
                properties!(
                    taken_up::Workplace::$backend().await,
                    taken_up::what_somebody_has_removed_or_spoilt_is_not_gone_on_with,
                    taken_up::what_nobody_will_go_on_with_is_removed,
                    taken_up::what_is_not_large_is_not_remembered,
                );
            }
        }
    )*}};
}

taking_up_contract!(smb, sftp);
