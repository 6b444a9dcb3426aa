// SPDX-License-Identifier: GPL-2.0

//! Tests of the page tables that need no hardware: one suite for each format, the same tests in
//! each.
//!
//! The tests are functions that are generic over a [`Spec`], what the specification says about a
//! format. They report a failure as an error, after saying where: they run under KUnit,
//! where a panic would stop the machine, and in user space.

#[macro_use]
mod check;

pub mod contiguous;
pub mod dirty;
pub mod format;
pub mod hardware;
pub mod join;
#[cfg(CONFIG_KUNIT)]
mod kunit;
pub mod memory;
pub mod range;
pub mod removal;
pub mod shape;
pub mod spec;
pub mod split;
pub mod split_rows;
pub mod survey;
pub mod top;
pub mod writable;

pub use check::{
    failed,
    Number, //
};
pub use spec::Spec;

/// Calls the macro `$stamp` with the name of a suite, a format, and the list of its tests.
///
/// This is the one list of tests. Most are for each format; those that need what some formats lack
/// are listed by that, and the first lines say which format has it:
///
/// - `rows`: leaves that take a row of entries, and `rows_above`, such leaves above level 0;
/// - `grows`: a top that grows;
/// - `whole`: trees that resolve 64 bits;
/// - `signed`: an upper half;
/// - `parts`: a top of several tables;
/// - `splits`: leaves that can be split while devices use them, and `splits_rows`, those that take
///   rows of entries too.
#[doc(hidden)]
#[macro_export]
macro_rules! iommu_pt_for_each_test {
    ($stamp:ident, $suite:ident, VtdSs) => {
        $crate::iommu_pt_for_each_test!(@has [splits] [] $stamp $suite VtdSs);
    };
    ($stamp:ident, $suite:ident, X86_64) => {
        $crate::iommu_pt_for_each_test!(@has [signed splits] [] $stamp $suite X86_64);
    };
    ($stamp:ident, $suite:ident, AmdV1) => {
        $crate::iommu_pt_for_each_test!(
            @has [rows rows_above grows whole splits splits_rows] [] $stamp $suite AmdV1
        );
    };
    ($stamp:ident, $suite:ident, Riscv) => {
        $crate::iommu_pt_for_each_test!(@has [rows signed splits] [] $stamp $suite Riscv);
    };
    ($stamp:ident, $suite:ident, RiscvX4) => {
        $crate::iommu_pt_for_each_test!(@has [rows parts splits] [] $stamp $suite RiscvX4);
    };
    ($stamp:ident, $suite:ident, Armv8S1) => {
        $crate::iommu_pt_for_each_test!(@has [rows rows_above] [] $stamp $suite Armv8S1);
    };
    ($stamp:ident, $suite:ident, Armv8S2) => {
        $crate::iommu_pt_for_each_test!(@has [rows rows_above] [] $stamp $suite Armv8S2);
    };

    (@has [rows $($more:ident)*] [$($tests:tt)*] $($to:ident)*) => {
        $crate::iommu_pt_for_each_test!(@has [$($more)*] [
            $($tests)*
            removal::a_row_behind_the_harvest
            contiguous::copies_are_alike
            contiguous::dirt_in_any_entry
            contiguous::a_row_is_replaced
            contiguous::a_row_behind_dirty_pages
            contiguous::query_inside_a_row
            contiguous::overmap_of_a_row
        ] $($to)*);
    };
    (@has [rows_above $($more:ident)*] [$($tests:tt)*] $($to:ident)*) => {
        $crate::iommu_pt_for_each_test!(@has [$($more)*] [
            $($tests)*
            contiguous::replaces_empty_tables
        ] $($to)*);
    };
    (@has [grows $($more:ident)*] [$($tests:tt)*] $($to:ident)*) => {
        $crate::iommu_pt_for_each_test!(@has [$($more)*] [
            $($tests)*
            top::nothing_is_beyond_the_top
            top::a_leaf_above_the_top
            top::out_of_memory_changes_nothing
            top::another_map_was_faster
            top::refused_by_the_hardware
        ] $($to)*);
    };
    (@has [whole $($more:ident)*] [$($tests:tt)*] $($to:ident)*) => {
        $crate::iommu_pt_for_each_test!(@has [$($more)*] [
            $($tests)*
            top::whole_address_space
            top::all_addresses_dirty
        ] $($to)*);
    };
    (@has [signed $($more:ident)*] [$($tests:tt)*] $($to:ident)*) => {
        $crate::iommu_pt_for_each_test!(@has [$($more)*] [
            $($tests)*
            top::upper_half
        ] $($to)*);
    };
    (@has [parts $($more:ident)*] [$($tests:tt)*] $($to:ident)*) => {
        $crate::iommu_pt_for_each_test!(@has [$($more)*] [
            $($tests)*
            top::across_the_parts
        ] $($to)*);
    };
    (@has [splits $($more:ident)*] [$($tests:tt)*] $($to:ident)*) => {
        $crate::iommu_pt_for_each_test!(@has [$($more)*] [
            $($tests)*
            split::one_level_each_time
            split::parts_are_like_the_leaf
            split::a_cut_leaf_converges
            split::without_memory_leaves_stay
            split::sizes_that_the_hardware_lacks
            split::eager_keeps_what_is_dirty
            split::eager_may_end_early
            split::a_late_write_is_all_below
            split::a_removed_leaf_stays_removed
            split::unmap_frees_the_parts
            split::another_tree
            join::leaves_come_back
            join::what_was_no_leaf_stays
            join::walks_are_excluded
        ] $($to)*);
    };
    (@has [splits_rows $($more:ident)*] [$($tests:tt)*] $($to:ident)*) => {
        $crate::iommu_pt_for_each_test!(@has [$($more)*] [
            $($tests)*
            split_rows::rows_change_live
            split_rows::rows_become_leaves
            split_rows::a_cut_row_converges
            split_rows::half_a_row_is_unmapped
            join::rows_come_back
        ] $($to)*);
    };

    (@has [] [$($tests:tt)*] $stamp:ident $suite:ident $spec:ident) => {
        $stamp! {
            $suite, $spec;
            format::leaf_words
            format::literal_words
            format::table_word
            format::limits
            format::leaves_survive_hardware_bits
            format::live_changes
            format::empty_prot_is_refused
            shape::config_is_checked
            shape::every_level_count
            shape::sizes_follow_the_hardware
            shape::tables_beyond_the_entries
            shape::drop_frees_all
            shape::walks_keep_to_the_claim
            range::every_leaf_size
            range::best_sizes
            range::runs_are_greedy
            range::boundaries
            range::ends_of_the_aperture
            range::bad_arguments
            range::overmap_keeps_what_was
            range::a_foreign_word_ends_it
            range::out_of_memory_is_exact
            range::unmap_inside_a_leaf
            range::unmap_ends_inside_a_leaf
            range::unmap_stops_at_a_hole
            range::tables_wait_for_the_flush
            range::leaf_replaces_empty_tables
            range::leaf_spares_full_tables
            range::incoherent_tables_are_flushed
            dirty::new_leaves_are_clean
            dirty::every_size_of_dirt
            dirty::one_bit_is_taken
            dirty::reads_are_not_reported
            dirty::no_clear_changes_nothing
            dirty::query_inside_a_leaf
            dirty::query_across_leaves
            dirty::neighbours_are_untouched
            dirty::pages_beside_large_leaves
            dirty::runs_are_joined
            dirty::a_sink_gives_up
            dirty::every_position_in_a_line
            dirty::holes_are_passed
            dirty::refused_if_incoherent
            dirty::refused_if_clean_leaves_refuse
            removal::tables_outlive_a_harvest
            removal::a_leaf_replaces_the_harvested_table
            removal::the_last_walk_frees
            removal::what_takes_its_place_stays_dirty
            removal::walks_are_counted
            removal::claims_of_another_tree
            split::refused_unless_asked_for
            join::nothing_without_splits
            split::words_of_parts
            writable::all_that_may_be_written
            writable::any_part_of_a_leaf
            writable::incoherent_tables_too
            survey::every_leaf_is_counted
            survey::pieces_add_up
            survey::the_way_to_a_page
            contiguous::every_size
            contiguous::sizes_are_mixed
            contiguous::rows_are_joined
            contiguous::what_is_no_link
            top::grows_when_needed
            $($tests)*
        }
    };
}
