// SPDX-License-Identifier: GPL-2.0

//! Finding the PCI function in sysfs, and saying how to bind it to vfio-pci if it is not.

use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

use anyhow::{
    bail,
    Context,
    Result, //
};

use crate::device::{
    self,
    Model,
    MODELS, //
};

/// A PCI function that is bound to vfio-pci and that we can drive.
pub(crate) struct Function {
    /// Domain, bus, device and function, as in `0000:01:00.0`.
    pub(crate) name: String,
    /// Its directory in sysfs.
    pub(crate) path: PathBuf,
    /// How to drive it.
    pub(crate) model: &'static Model,
}

impl Function {
    /// Looks up `name`, or without it the only suitable function of the machine.
    ///
    /// # Errors
    ///
    /// There is none, it cannot be driven, or it is not bound to vfio-pci; the message says what to do.
    pub(crate) fn find(name: Option<&str>) -> Result<Self> {
        let functions = Path::new("/sys/bus/pci/devices");
        match name {
            Some(name) => Self::named(functions, name),
            None => Self::only(functions),
        }
    }

    /// The file by which vfio gives access to it.
    ///
    /// # Errors
    ///
    /// The kernel makes no such files.
    pub(crate) fn device_file(&self) -> Result<PathBuf> {
        let name = fs::read_dir(self.path.join("vfio-dev"))
            .ok()
            .and_then(|mut entries| Some(entries.next()?.ok()?.file_name()))
            .with_context(|| {
                format!(
                    "{} has no vfio device file; use a kernel with CONFIG_VFIO_DEVICE_CDEV=y",
                    self.name
                )
            })?;
        Ok(Path::new("/dev/vfio/devices").join(name))
    }

    fn named(functions: &Path, name: &str) -> Result<Self> {
        // The domain may be left out, as lspci does.
        let full = match name.matches(':').count() {
            1 => format!("0000:{name}"),
            _ => name.to_string(),
        }
        .to_lowercase();
        let path = functions.join(&full);
        if full.contains('/') || full.starts_with('.') || !path.is_dir() {
            bail!(
                "there is no PCI function {name}; write it as lspci -D lists it, like 0000:01:00.0"
            );
        }
        let id = id(&path)?;
        let Some(model) = MODELS.iter().find(|m| m.id == id) else {
            bail!(
                "{full} is a {:04x}:{:04x}, which this program cannot make write; use one of: {}",
                id.0,
                id.1,
                device::names()
            );
        };
        let driver = fs::read_link(path.join("driver"))
            .ok()
            .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
        if !path.join("iommu_group").exists() {
            bail!(
                "{full} is not behind an IOMMU that a driver serves; load the driver, or boot with the \
                 parameter that enables it (intel_iommu=on, amd_iommu=on)"
            );
        }
        if driver.as_deref() != Some("vfio-pci") {
            bail!("{}", how_to_bind(&full, driver.as_deref()));
        }
        Ok(Self {
            name: full,
            path,
            model,
        })
    }

    fn only(functions: &Path) -> Result<Self> {
        let mut names: Vec<_> = fs::read_dir(functions)
            .with_context(|| format!("cannot list {}; mount sysfs on /sys", functions.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| {
                id(&functions.join(name)).is_ok_and(|id| MODELS.iter().any(|m| m.id == id))
            })
            .collect();
        names.sort();
        let bound = names
            .iter()
            .find(|name| Self::named(functions, name).is_ok());
        match bound.or(names.first()) {
            Some(name) => Self::named(functions, name),
            None => bail!(
                "there is no PCI function that this program can make write; add one of: {}",
                device::names()
            ),
        }
    }
}

/// Vendor and device number of the function at `path`.
fn id(path: &Path) -> Result<(u16, u16)> {
    let number = |file: &str| -> Result<u16> {
        let path = path.join(file);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}; mount sysfs on /sys", path.display()))?;
        u16::from_str_radix(text.trim().trim_start_matches("0x"), 16)
            .with_context(|| format!("{} holds no number", path.display()))
    };
    Ok((number("vendor")?, number("device")?))
}

/// What to type so that vfio-pci gets the function.
fn how_to_bind(name: &str, driver: Option<&str>) -> String {
    let (state, unbind) = match driver {
        Some(driver) => (
            format!("is bound to {driver}, not to vfio-pci"),
            format!("  echo {name} > /sys/bus/pci/devices/{name}/driver/unbind\n"),
        ),
        None => ("is not bound to vfio-pci".to_string(), String::new()),
    };
    format!(
        "{name} {state}; bind it with these commands:\n  \
         modprobe vfio-pci\n  \
         echo vfio-pci > /sys/bus/pci/devices/{name}/driver_override\n\
         {unbind}  \
         echo {name} > /sys/bus/pci/drivers_probe"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A made-up `/sys/bus/pci/devices`, removed at the end.
    struct Sysfs(PathBuf);

    impl Sysfs {
        fn new(test: &str) -> Result<Self> {
            let path =
                std::env::temp_dir().join(format!("iommu-migrate-{test}-{}", std::process::id()));
            fs::create_dir_all(&path)?;
            fs::create_dir_all(path.join("group"))?;
            Ok(Self(path))
        }

        fn add(&self, name: &str, id: (u16, u16), driver: Option<&str>) -> Result<()> {
            let path = self.0.join(name);
            fs::create_dir_all(path.join("vfio-dev/vfio0"))?;
            symlink("../group", path.join("iommu_group"))?;
            fs::write(path.join("vendor"), format!("{:#06x}\n", id.0))?;
            fs::write(path.join("device"), format!("{:#06x}\n", id.1))?;
            if let Some(driver) = driver {
                symlink(Path::new("../drivers").join(driver), path.join("driver"))?;
            }
            Ok(())
        }
    }

    impl Drop for Sysfs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn message(result: Result<Function>) -> String {
        result.err().map_or_else(String::new, |e| e.to_string())
    }

    #[test]
    fn takes_the_function_that_is_bound() -> Result<()> {
        let sysfs = Sysfs::new("bound")?;
        sysfs.add("0000:00:01.0", (0x1234, 0x1111), Some("bochs"))?;
        sysfs.add("0000:00:02.0", (0x8086, 0x10c9), Some("igb"))?;
        sysfs.add("0000:00:03.0", (0x8086, 0x10c9), Some("vfio-pci"))?;
        assert_eq!(Function::only(&sysfs.0)?.name, "0000:00:03.0");
        let function = Function::named(&sysfs.0, "00:03.0")?;
        assert_eq!(function.model.name, "igb");
        assert_eq!(
            function.device_file()?,
            Path::new("/dev/vfio/devices/vfio0")
        );
        fs::remove_dir(function.path.join("vfio-dev/vfio0"))?;
        assert!(function.device_file().is_err());
        Ok(())
    }

    #[test]
    fn says_what_to_change() -> Result<()> {
        let sysfs = Sysfs::new("change")?;
        assert!(message(Function::only(&sysfs.0)).contains("igb (8086:10c9)"));
        sysfs.add("0000:00:01.0", (0x1234, 0x1111), Some("vfio-pci"))?;
        sysfs.add("0000:00:02.0", (0x8086, 0x10c9), Some("igb"))?;
        let bound = message(Function::only(&sysfs.0));
        assert!(bound.starts_with("0000:00:02.0 is bound to igb, not to vfio-pci"));
        assert!(
            bound.contains("echo 0000:00:02.0 > /sys/bus/pci/devices/0000:00:02.0/driver/unbind")
        );
        assert!(message(Function::named(&sysfs.0, "00:01.0")).contains("a 1234:1111"));
        assert!(message(Function::named(&sysfs.0, "../change")).contains("no PCI function"));
        sysfs.add("0000:00:04.0", (0x8086, 0x10c9), None)?;
        let unbound = message(Function::named(&sysfs.0, "0000:00:04.0"));
        assert!(unbound.contains("is not bound") && !unbound.contains("unbind"));
        fs::remove_file(sysfs.0.join("0000:00:04.0/iommu_group"))?;
        let alone = message(Function::named(&sysfs.0, "0000:00:04.0"));
        assert!(alone.contains("not behind an IOMMU"));
        Ok(())
    }
}
