// SPDX-License-Identifier: GPL-2.0

//! KUnit tests that need what not every machine has.

use core::ptr::NonNull;

use kernel::{
    bindings,
    prelude::*, //
};

/// Says that the test which runs can show nothing on this machine, and why: KUnit counts it as
/// skipped, unless it fails after this. Nothing happens outside of a test.
///
/// Context: any.
#[inline(never)]
pub fn skip(reason: &CStr) {
    // SAFETY: The function can always be called.
    let Some(test) = NonNull::new(unsafe { bindings::kunit_get_current_test() }) else {
        return;
    };
    let test = test.as_ptr();
    // SAFETY: The structure is that of the test which this task runs, so it is there until the test
    // returns, and no other task uses these two fields before that.
    let (status, comment) = unsafe { (&mut (*test).status, &mut (*test).status_comment) };
    *status = bindings::kunit_status_KUNIT_SKIPPED;
    // The rest is zero, and the last byte stays so.
    let room = comment.len() - 1;
    for (to, from) in comment
        .iter_mut()
        .take(room)
        .zip(reason.to_bytes_with_nul())
    {
        *to = *from;
    }
}
