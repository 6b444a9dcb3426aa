// SPDX-License-Identifier: GPL-2.0

//! A PCI function in sysfs: to vfio-pci and back, off its bus and on it again.

use std::{
    fs::{
        self,
        File,
        OpenOptions, //
    },
    path::{
        Path,
        PathBuf, //
    },
    thread::sleep,
    time::Duration,
};

use anyhow::{
    bail,
    Context,
    Result, //
};

const FUNCTIONS: &str = "/sys/bus/pci/devices";
const DRIVER: &str = "vfio-pci";

/// A function, by its address on the bus.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    /// Domain, bus, device and function, as in `0000:01:00.0`.
    pub(crate) name: String,
}

/// Writes a word to a file of the kernel's.
pub(crate) fn tell(path: impl AsRef<Path>, word: &str) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, word).with_context(|| format!("cannot write '{word}' to {}", path.display()))
}

impl Function {
    /// Those with these numbers of vendor and device, in the order of their addresses.
    ///
    /// # Errors
    ///
    /// There is no sysfs.
    pub(crate) fn all(vendor: &str, device: &str) -> Result<Vec<Self>> {
        let is = |path: &Path, file: &str, wanted: &str| {
            fs::read_to_string(path.join(file)).is_ok_and(|text| text.trim() == wanted)
        };
        let mut found: Vec<_> = fs::read_dir(FUNCTIONS)
            .with_context(|| format!("cannot list {FUNCTIONS}; mount sysfs on /sys"))?
            .filter_map(Result::ok)
            .filter(|entry| is(&entry.path(), "vendor", vendor))
            .filter(|entry| is(&entry.path(), "device", device))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(|name| Self { name })
            .collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn path(&self) -> PathBuf {
        Path::new(FUNCTIONS).join(&self.name)
    }

    /// Gives it to vfio-pci, whichever driver it has.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn bind(&self) -> Result<()> {
        let path = self.path();
        let driver = path.join("driver");
        if fs::read_link(&driver).is_ok_and(|link| link.ends_with(DRIVER)) {
            return Ok(());
        }
        tell(path.join("driver_override"), DRIVER)?;
        if driver.exists() {
            tell(driver.join("unbind"), &self.name)?;
        }
        tell(format!("/sys/bus/pci/drivers/{DRIVER}/bind"), &self.name)
    }

    /// Takes it from vfio-pci.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn unbind(&self) -> Result<()> {
        if self.path().join("driver").exists() {
            tell(self.path().join("driver/unbind"), &self.name)?;
        }
        tell(self.path().join("driver_override"), "\n")
    }

    /// Removes all of `functions` from their bus, and has the kernel find them again.
    ///
    /// # Errors
    ///
    /// They do not come back within ten seconds.
    pub(crate) fn replug(functions: &[Self]) -> Result<()> {
        for function in functions {
            tell(function.path().join("remove"), "1")?;
        }
        tell("/sys/bus/pci/rescan", "1")?;
        for function in functions {
            let mut rounds = 0;
            while !function.path().join("iommu_group").exists() {
                rounds += 1;
                if rounds > 1000 {
                    bail!(
                        "{} was removed from its bus, and was not found again",
                        function.name
                    );
                }
                sleep(Duration::from_millis(10));
            }
            function.bind()?;
        }
        Ok(())
    }

    /// Opens its device file of vfio.
    ///
    /// # Errors
    ///
    /// It has none, or is in use.
    pub(crate) fn open(&self) -> Result<File> {
        let name = fs::read_dir(self.path().join("vfio-dev"))
            .ok()
            .and_then(|mut entries| Some(entries.next()?.ok()?.file_name()))
            .with_context(|| format!("{} has no device file of vfio", self.name))?;
        let path = Path::new("/dev/vfio/devices").join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {} of {}", path.display(), self.name))
    }

    /// The numbers of its interrupts.
    pub(crate) fn interrupts(&self) -> Vec<String> {
        fs::read_dir(self.path().join("msi_irqs"))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    }
}
