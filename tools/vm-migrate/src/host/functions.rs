// SPDX-License-Identifier: GPL-2.0

//! The functions of this machine that can be assigned, and which of the two virtual machines gets which.

use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};

/// The driver that can migrate a page writer.
const DRIVER: &str = "page_writer_vfio_pci";
const DEVICES: &str = "/sys/bus/pci/devices";
/// `vendor` and `device` of a page writer in sysfs.
const IDS: (&str, &str) = ("0x1234", "0x11f1");

/// The functions of the source and of the destination, in the same order: a function is opened by one
/// of them only.
pub(crate) type Sides = [Vec<String>; 2];

/// Chooses `count` functions for each side: those that are named, or else what is there.
///
/// # Errors
///
/// There are not enough, or one is not what it should be.
pub(crate) fn choose(named: &[String], count: usize) -> Result<Sides> {
    if named.is_empty() {
        let (root, below) = present(Path::new(DEVICES))?;
        return share(root, below, count);
    }
    ensure!(
        named.len() == 2 * count,
        "a virtual machine with {count} functions needs {} of --device: first those of the source, \
         then those of the destination",
        2 * count
    );
    for name in named {
        check(&Path::new(DEVICES).join(name), name)?;
    }
    let (source, destination) = named.split_at(count);
    Ok([source.to_vec(), destination.to_vec()])
}

/// Whether a function is one that can be migrated.
fn check(path: &Path, name: &str) -> Result<()> {
    ensure!(path.exists(), "there is no PCI function {name}");
    let driver = fs::read_link(path.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name);
    ensure!(
        driver.is_some_and(|driver| driver == DRIVER),
        "{name} is not bound to {DRIVER}: write \"{DRIVER}\" to {path}/driver_override, \
         unbind it, and write {name} to /sys/bus/pci/drivers_probe",
        path = path.display()
    );
    Ok(())
}

/// The page writers that are bound: on the root bus, and below bridges.
fn present(devices: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let (mut root, mut below) = (vec![], vec![]);
    let entries = fs::read_dir(devices)
        .with_context(|| format!("cannot read {}", devices.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
    names.sort();
    for name in names {
        let path = devices.join(&name);
        let is = |file: &str, id: &str| {
            fs::read_to_string(path.join(file)).is_ok_and(|text| text.trim() == id)
        };
        let name = name.to_string_lossy().into_owned();
        if is("vendor", IDS.0) && is("device", IDS.1) && check(&path, &name).is_ok() {
            match is_below_bridge(&fs::canonicalize(&path)?) {
                true => below.push(name),
                false => root.push(name),
            }
        }
    }
    Ok((root, below))
}

/// Whether the path of a function leads through another one.
fn is_below_bridge(path: &Path) -> bool {
    let parts = path.iter().filter(|part| {
        let part = part.to_string_lossy();
        part.split(':').count() == 3 && part.contains('.')
    });
    parts.count() > 1
}

/// Gives each side `count`: pairs on the root bus and below bridges in turn, as long as there are both.
fn share(root: Vec<String>, below: Vec<String>, count: usize) -> Result<Sides> {
    let found = root.len() + below.len();
    let mut pools = [root.into_iter(), below.into_iter()];
    let mut sides = Sides::default();
    for i in 0..count {
        let choice = [i % 2, (i + 1) % 2]
            .into_iter()
            .find(|&pool| pools.get(pool).is_some_and(|pool| pool.len() >= 2));
        // One on the root bus and one below a bridge are a pair as well, if nothing better is left.
        let pair = match choice.and_then(|pool| pools.get_mut(pool)) {
            Some(pool) => [pool.next(), pool.next()],
            None => pools.each_mut().map(Iterator::next),
        };
        let [Some(source), Some(destination)] = pair else {
            bail!(
                "a virtual machine with {count} functions needs {} page writers that are bound to \
                 {DRIVER}, and there are {found}",
                2 * count
            );
        };
        for (side, name) in sides.iter_mut().zip([source, destination]) {
            side.push(name);
        }
    }
    Ok(sides)
}

/// The file that holds the number of pages that IOMMUs use for tables.
const VMSTAT: &str = "/proc/vmstat";

/// Pages that IOMMUs use for their tables.
///
/// # Errors
///
/// The kernel does not tell.
pub(crate) fn table_pages() -> Result<u64> {
    let path = PathBuf::from(VMSTAT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {VMSTAT}"))?;
    table_pages_of(&text).with_context(|| format!("{VMSTAT} has no nr_iommu_pages"))
}

fn table_pages_of(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("nr_iommu_pages "));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn the_second_function_is_below_a_bridge() -> Result<()> {
        let sides = share(names(&["r0", "r1"]), names(&["b0", "b1"]), 2)?;
        assert_eq!(sides, [names(&["r0", "b0"]), names(&["r1", "b1"])]);
        Ok(())
    }

    #[test]
    fn what_is_there_is_made_use_of() -> Result<()> {
        let sides = share(names(&["r0"]), names(&["b0"]), 1)?;
        assert_eq!(sides, [names(&["r0"]), names(&["b0"])]);
        let sides = share(names(&["r0", "r1", "r2"]), names(&["b0"]), 2)?;
        assert_eq!(sides, [names(&["r0", "r2"]), names(&["r1", "b0"])]);
        let few = share(names(&["r0", "r1"]), names(&["b0"]), 2);
        assert!(few.is_err_and(|e| e.to_string().ends_with("and there are 3")));
        Ok(())
    }

    #[test]
    fn bridges_are_seen_in_the_path() {
        let root = "/sys/devices/pci0000:00/0000:00:0c.0";
        let below = "/sys/devices/pci0000:00/0000:00:05.0/0000:01:00.0";
        assert!(!is_below_bridge(Path::new(root)) && is_below_bridge(Path::new(below)));
    }

    #[test]
    fn functions_are_named_in_pairs() {
        let e = choose(&names(&["0000:00:0c.0"]), 1).map(|_| ());
        assert!(e.is_err_and(|e| e.to_string().contains("needs 2 of --device")));
        let e = choose(&names(&["ffff:ff:1f.7", "ffff:ff:1f.6"]), 1).map(|_| ());
        assert!(e.is_err_and(|e| e.to_string().contains("no PCI function ffff:ff:1f.7")));
    }

    #[test]
    fn table_pages_are_read() {
        let text = "nr_free_pages 3\nnr_iommu_pages 42\nnr_swapcached 0\n";
        assert_eq!(table_pages_of(text), Some(42));
        assert_eq!(table_pages_of("nr_free_pages 3\n"), None);
    }
}
