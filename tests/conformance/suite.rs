//! The list of all checks, once for every backend.

/// Makes a test of each check with the fixtures of one backend.
macro_rules! suite {
    ($backend:ident) => {
        suite! { $backend;
            attaching {
                a_volume_outlives_its_instance,
                what_is_attached_comes_back_and_goes,
                what_is_no_capability_is_not_attached,
            }
            clones {
                a_clone_brings_no_snapshots,
                a_clone_inherits_nothing,
                a_clone_of_a_running_instance_has_its_disk,
                a_clone_of_a_snapshot_has_its_content,
                a_clone_of_the_disk_has_the_current_content,
                a_clone_runs_unless_bare,
                a_clone_that_cannot_be_made_leaves_nothing,
                clone_and_source_part_ways,
                many_clones_of_one_source_at_once,
            }
            console {
                a_session_follows_the_size,
                a_session_has_a_terminal,
                a_session_has_its_account,
                a_session_tells_signals,
                a_session_that_is_ended_leaves_nothing_behind,
                keys_reach_a_session,
                no_session_without_a_running_instance,
                what_a_short_session_says_is_whole,
            }
            exec {
                a_command_that_is_ended_leaves_nothing_behind,
                a_command_in_a_stopped_instance_fails,
                a_command_that_takes_too_long_times_out,
                a_command_that_times_out_leaves_nothing_behind,
                a_program_that_is_not_there_is_127,
                a_script_runs_by_its_first_line,
                a_signal_is_128_and_its_number,
                an_account_is_honoured,
                endless_output_is_kept_in_part,
                exit_codes_pass_through,
                long_output_is_whole,
                output_and_errors_come_apart,
                stdin_reaches_the_command,
                streams_may_lead_nowhere,
                variables_of_the_call_go_over_those_of_the_sandbox,
                what_commands_write_is_seen,
            }
            files {
                a_content_that_has_moved_is_refused,
                a_content_on_this_machine_is_read,
                a_deleted_file_is_gone_and_not_found_again,
                a_running_instance_takes_files,
                a_source_that_has_become_something_else_is_refused,
                a_stream_becomes_a_file,
                attributes_change_nothing_else,
                attributes_need_a_regular_file,
                batches_are_done_in_order,
                batches_tell_what_stood_there,
                names_may_be_odd,
                removing_nothing_is_no_error,
                removing_takes_links_themselves,
                removing_takes_whole_folders,
            }
            folders {
                a_folder_below_a_file_cannot_be_made,
                a_folder_replaces_files_and_links,
                a_folder_that_is_there_keeps_what_it_holds,
                a_link_is_made_as_it_is,
                a_link_replaces_files_and_folders,
                links_in_parents_are_followed_inside_only,
            }
            lifecycle {
                a_deleted_instance_is_gone,
                a_name_that_no_host_could_have_is_refused,
                a_taken_name_is_refused,
                an_instance_is_made_from_an_image,
                an_instance_runs_at_once_unless_bare,
                an_unknown_image_is_not_found,
                deleting_ends_what_runs,
                different_instances_at_once,
                not_found_is_matched_through_wrapping,
                policy_is_refused_where_it_is_no_capability,
                start_and_stop_may_be_said_twice,
                what_is_not_there_is_not_found,
            }
            looking {
                absent_paths_are_not_in_the_answer,
                below_is_everything_below,
                what_is_larger_than_the_bound_is_not_read,
                contents_come_along_up_to_the_bound,
                opaque_contents_stay,
                special_files_are_told_and_not_opened,
                the_shapes_of_things_are_told,
            }
            notes {
                a_note_is_made_once,
                a_note_is_replaced_unless_it_has_changed,
                a_note_is_taken_over_unless_it_has_changed,
                notes_are_deleted_with_their_environment,
                notes_have_nothing_to_do_with_each_other,
                of_many_makers_at_once_one_succeeds,
                of_many_takers_at_once_one_succeeds,
                only_the_note_that_was_named_is_deleted,
                texts_come_back_as_they_were,
            }
            observing {
                everything_is_in_no_environments_scope,
                labels_and_names_are_a_scope,
                the_moment_of_creation_is_told,
                what_runs_is_told,
            }
            reading {
                a_link_is_read_inside_only,
                a_listing_hides_no_name,
                a_listing_is_ordered,
                a_listing_may_be_of_everything_below,
                reading_nothing_is_not_found,
                reading_stops_at_its_bound,
                the_root_folder_can_be_listed,
            }
            settings {
                a_refused_change_changes_nothing,
                an_unknown_setting_is_refused,
                changing_sets_and_unsets_and_leaves_the_rest,
                no_change_is_no_error,
                settings_come_back_in_normal_form,
                shares_of_memory_come_back,
                settings_that_would_never_be_there_are_refused,
                what_could_add_a_line_to_a_file_of_the_host_is_refused,
                what_was_not_declared_is_not_told,
            }
            snapshots {
                a_deleted_snapshot_is_gone,
                a_restored_instance_runs_on,
                a_snapshot_keeps_the_labels_of_its_moment,
                a_taken_snapshot_is_refused,
                restoring_puts_the_disk_back_and_nothing_else,
                snapshots_are_listed_oldest_first,
                unknown_snapshots_are_not_found,
            }
            writing {
                a_file_below_a_file_cannot_be_written,
                a_file_replaces_a_folder,
                a_file_replaces_a_link_and_spares_its_target,
                any_bytes_come_back,
                existing_parents_are_left_alone,
                large_files_come_back,
                missing_parents_are_made_with_the_same_owner,
                mode_and_owner_are_as_asked,
                writing_again_replaces_all_of_it,
            }
        }
    };
    ($backend:ident; $($room:ident { $($check:ident,)+ })+) => {
        /// Every check with its room.
        #[allow(dead_code, reason = "all backends have the same")]
        pub(crate) const CHECKS: &[(&str, &str)] = &[$($((stringify!($room), stringify!($check)),)+)+];

        $(mod $room {
            use crate::conformance::{fixture, $room};
            $(#[tokio::test]
            async fn $check() {
                let check = (stringify!($room), stringify!($check));
                fixture::run_listed(fixture::$backend().await, check, $room::$check).await;
            })+
        })+
    };
}

pub(super) use on_memory::CHECKS;

mod on_memory {
    suite!(memory);
}

mod on_incus {
    suite!(incus);
}

mod on_local {
    suite!(local);
}

mod on_truenas_25_04 {
    suite!(truenas_25_04);
}

mod on_truenas_25_10 {
    suite!(truenas_25_10);
}

mod on_truenas_26 {
    suite!(truenas_26);
}
