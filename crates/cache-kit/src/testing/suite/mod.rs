//! The behaviours that every backend shares, one function each.
//!
//! [`backend_suite!`](crate::backend_suite) makes one test of each for a backend of yours.

mod bulk;
mod fence;
mod lifetime;
mod many;
mod renew;
mod robust;
mod value;

pub use bulk::*;
pub use fence::*;
pub use lifetime::*;
pub use many::*;
pub use renew::*;
pub use robust::*;
pub use value::*;

use bytes::Bytes;

use super::Subject;
use crate::backend::CacheBackend;

/// Makes a module of tests out of the shared behaviours, for one backend.
///
/// The expression makes a future of a [`Subject`](crate::testing::Subject): a backend that is empty and used by
/// nobody else. It is evaluated once for each test.
///
/// ```no_run
/// # fn main() {}
/// cache_kit::backend_suite!(memory, async {
///     cache_kit::testing::Subject::real_time(cache_kit::backend::InMemoryBackend::new())
/// });
/// ```
#[macro_export]
macro_rules! backend_suite {
    ($name:ident, $subject:expr) => {
        $crate::backend_suite! { @tests $name, $subject,
            a_missing_key_is_none
            a_value_comes_back_byte_for_byte
            an_overwrite_replaces_the_value
            a_large_value_comes_back
            awkward_keys_are_keys_like_any_other
            keys_that_look_alike_do_not_meet
            a_deleted_key_is_none
            deleting_an_absent_key_is_fine
            exists_tells_what_get_would_find
            peek_tells_what_get_would_find
            mget_answers_in_order_with_duplicates_and_misses
            mget_of_nothing_is_nothing
            mset_writes_each_entry_with_its_own_life
            mset_leaves_the_last_of_many_with_one_key
            mdelete_removes_what_is_there
            delete_pattern_removes_what_matches_or_says_that_it_cannot
            clear_all_leaves_nothing
            a_healthy_backend_says_so
            capabilities_do_not_change
            a_ttl_of_zero_is_an_error_and_changes_nothing
            a_ttl_of_1_ms_ends
            a_ttl_of_900_ms_is_kept
            a_ttl_of_40_days_is_kept
            the_longest_ttl_does_not_end
            an_overwrite_replaces_the_ttl
            an_expired_key_can_be_set_again
            concurrent_writers_leave_one_whole_value
            an_overwrite_is_never_seen_as_a_miss
            a_fill_that_races_with_an_invalidation_does_not_survive_it
            cancelled_callers_leave_no_trace
            a_lease_is_granted_once
            a_lease_is_invisible_to_reads
            a_fill_under_a_lease_is_stored
            a_fill_happens_once
            a_lease_is_void_after_a_delete
            a_lease_is_void_after_an_overwrite
            a_lease_is_void_after_clear_all
            a_lease_is_void_after_delete_pattern
            a_lease_ends_with_its_life
            a_released_lease_can_be_taken_again
            a_lease_of_one_key_does_not_fill_another
            a_present_value_is_not_leased_over
            a_value_that_was_seen_stays_until_it_is_filled
            a_second_caller_is_told_busy
            an_older_lease_does_not_fill_a_newer_one
            without_a_fence_nothing_is_acquired_or_filled_at_once
            claims_made_at_once_are_answered_in_order_each_as_if_alone
            of_two_claims_of_one_key_at_most_one_is_granted
            of_no_keys_there_are_no_answers
            fills_made_at_once_have_their_own_lives_and_refusals
            a_delete_refuses_its_own_key_of_many
            hundreds_of_keys_are_leased_and_filled_at_once
            each_part_has_keys_of_its_own
            without_a_fence_nothing_is_renewed
            a_renewed_lease_outlives_its_first_life
            a_renewed_lease_ends_with_its_new_life
            a_void_lease_is_not_renewed
            the_lease_of_another_is_not_renewed
            a_renewed_lease_is_invisible_and_busy
            renewing_over_a_value_keeps_it_readable
            an_old_lease_removes_nothing_of_a_renewed_one
            a_renewed_lease_can_be_released
            a_delete_or_a_write_voids_a_renewed_lease
            giving_back_later_touches_nothing_else
        }
    };
    (@tests $name:ident, $subject:expr, $($behaviour:ident)+) => {
        mod $name {
            #[allow(unused_imports, reason = "the subject may need nothing from outside")]
            use super::*;
            $(
                #[test]
                fn $behaviour() {
                    $crate::testing::private::run(stringify!($behaviour), async {
                        let subject = ($subject).await;
                        $crate::testing::suite::$behaviour(&subject).await;
                    });
                }
            )+
        }
    };
}

/// The value of a key, which must be readable.
async fn get<B: CacheBackend>(subject: &Subject<B>, key: &str) -> Option<Bytes> {
    match subject.backend().get(key).await {
        Ok(value) => value,
        Err(error) => panic!("get of {key:?} failed: {error}"),
    }
}

/// Stores without end.
async fn put<B: CacheBackend>(subject: &Subject<B>, key: &str, value: impl Into<Bytes>) {
    if let Err(error) = subject.backend().set(key, value.into(), None).await {
        panic!("set of {key:?} failed: {error}");
    }
}

/// What an operation returned, which must not have failed.
#[track_caller]
fn ok<T>(result: crate::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the backend failed: {error}"),
    }
}
