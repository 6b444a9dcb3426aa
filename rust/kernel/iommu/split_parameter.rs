// SPDX-License-Identifier: GPL-2.0

//! The parameter `split` of a driver, and the file in debugfs that changes it.
//!
//! Parameters of a module that is written in Rust are set when it is loaded, and cannot be written
//! later: `module!` of Linux 7.3 leaves them out of sysfs. So there is a file in the driver's
//! directory.
//!
//! A change is for domains that are allocated later. A domain asks once, when it is allocated, and
//! keeps the answer, since its tables are made for it.

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    uaccess::UserSliceReader, //
};

use super::{
    files::read_number,
    values::Splits, //
};

/// The parameter.
///
/// # Invariants
///
/// `value` is one that [`Splits::from_parameter`] takes.
pub struct SplitParameter {
    value: Atomic<u32>,
    log_error: fn(fmt::Arguments<'_>),
}

impl SplitParameter {
    /// Makes one that has the value with which the module was loaded. `log_error` prints with the
    /// name of the module in front.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a value without a meaning: the log says which have one. `ENOMEM`.
    pub fn new(value: u32, log_error: fn(fmt::Arguments<'_>)) -> Result<Arc<Self>> {
        // INVARIANT: 0 is "off".
        let parameter = Self {
            value: Atomic::new(0),
            log_error,
        };

        parameter.set(Some(value.into()))?;
        Ok(Arc::new(parameter, GFP_KERNEL)?)
    }

    /// How large leaves of a domain that is allocated now are split.
    pub fn splits(&self) -> Splits {
        // By the type invariants there is no error.
        Splits::from_parameter(self.value.load(Relaxed)).unwrap_or_default()
    }

    /// Sets it; `None` is what is no number.
    fn set(&self, number: Option<u64>) -> Result {
        let value = number.and_then(|number| u32::try_from(number).ok());
        let Some(value) = value.filter(|value| Splits::from_parameter(*value).is_ok()) else {
            (self.log_error)(fmt!(
                "split: use 0 (off), 1 (split large leaves that are dirty), or a leaf size in \
                 bytes (split down to it when tracking begins): a power of two, 4096 or more\n"
            ));
            return Err(EINVAL);
        };

        // INVARIANT: The value was checked.
        // Nothing else has to be seen with it: a domain uses the one value that it has read.
        self.value.store(value, Relaxed);
        Ok(())
    }

    /// Makes the file `split` in `parent`. It goes when the returned value is dropped.
    ///
    /// Context: may sleep.
    // Not compiled into other crates: see "What a file outlives" in `files`.
    #[inline(never)]
    pub(super) fn file_of(this: Arc<Self>, parent: &Dir) -> Result<Pin<KBox<File<Arc<Self>>>>> {
        let file = parent.read_write_callback_file(c"split", this, &show, &change);

        KBox::pin_init(file, GFP_KERNEL)
    }
}

/// Shows the value.
fn show(parameter: &Arc<SplitParameter>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{}", parameter.value.load(Relaxed))
}

/// Takes another one.
fn change(parameter: &Arc<SplitParameter>, reader: &mut UserSliceReader) -> Result {
    match read_number(reader) {
        Err(error) if error == EFAULT => Err(error),
        number => parameter.set(number.ok()),
    }
}

#[cfg(CONFIG_RUST_IOMMU_KUNIT_TEST)]
#[kunit_tests(rust_iommu_split_parameter)]
mod tests {
    use super::*;

    fn silent(_message: fmt::Arguments<'_>) {}

    #[test]
    fn only_values_with_a_meaning_are_taken() -> Result {
        let parameter = SplitParameter::new(1, silent)?;

        assert!(SplitParameter::new(2, silent).is_err());
        assert_eq!(parameter.splits(), Splits::Lazy);
        for number in [2, 4095, 6144, 1 << 32, (1 << 32) + 1, u64::MAX] {
            assert_eq!(parameter.set(Some(number)), Err(EINVAL));
        }
        assert_eq!(parameter.set(None), Err(EINVAL));
        assert_eq!(parameter.splits(), Splits::Lazy);

        parameter.set(Some(4096))?;
        assert_eq!(parameter.splits(), Splits::Eager { lg2: 12 });
        parameter.set(Some(0))?;
        assert_eq!(parameter.splits(), Splits::Off);
        Ok(())
    }
}
