// SPDX-License-Identifier: GPL-2.0

//! The kernel's limit for messages that a device can provoke.

use kernel::{
    bindings,
    prelude::*,
    types::Opaque, //
};

/// Lets through the usual burst of messages in each of the usual intervals (`ratelimit_state`).
///
/// When messages pass again, the kernel prints how many it has kept back.
#[pin_data]
pub struct RateLimit {
    #[pin]
    state: Opaque<bindings::ratelimit_state>,
}

// SAFETY: The state has no tie to the thread that made it.
unsafe impl Send for RateLimit {}
// SAFETY: `___ratelimit()` changes the state under its spinlock and by atomic accesses.
unsafe impl Sync for RateLimit {}

impl RateLimit {
    /// A limit that has let nothing through.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            state <- Opaque::ffi_init(|state| {
                // SAFETY: `state` is valid for writes.
                unsafe { bindings::ratelimit_default_init(state) }
            }),
        })
    }

    /// Whether another message may be printed now.
    ///
    /// Context: any.
    pub fn allows(&self) -> bool {
        // SAFETY: `new()` has initialised the state, which is pinned. The name is a string that
        // ends in NUL.
        unsafe { bindings::___ratelimit(self.state.get(), c"iommu".as_char_ptr()) != 0 }
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_ratelimit)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes() -> Result {
        let limit = KBox::pin_init(RateLimit::new(), GFP_KERNEL)?;
        let passed = (0..100).filter(|_| limit.allows()).count();
        // The default burst, or up to two if an interval ends in between.
        assert!((10..=20).contains(&passed));
        // Another limit is not affected.
        assert!(KBox::pin_init(RateLimit::new(), GFP_KERNEL)?.allows());
        Ok(())
    }
}
