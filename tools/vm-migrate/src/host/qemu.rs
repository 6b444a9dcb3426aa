// SPDX-License-Identifier: GPL-2.0

//! QEMU's command line.

use std::path::Path;

use anyhow::Result;

use crate::{
    cli::{
        Options,
        PageSize,
        Scenario, //
    },
    trace,
};

/// Ports of the virtual machine that functions are plugged into: the first one's slot on the root bus.
const FIRST_SLOT: usize = 0x10;

/// The memory that can be plugged: as much as Linux adds at a time.
const PLUGGABLE: u64 = 128 << 20;
/// The memory module, in QEMU.
pub(crate) const DIMM: &str = "dimm0";

/// What is plugged in when QEMU starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plugged {
    /// A function of this machine for each port, or none.
    pub(crate) hosts: Vec<Option<String>>,
    /// Whether the memory module is.
    pub(crate) dimm: bool,
}

/// Files of one QEMU.
pub(crate) struct Files {
    pub(crate) monitor: String,
    pub(crate) serial: String,
    pub(crate) console: String,
    pub(crate) errors: String,
    pub(crate) trace: String,
}

impl Files {
    /// Those of the QEMU `name`.
    pub(crate) fn new(logs: &Path, name: &str) -> Self {
        let file = |kind: &str| format!("{}/{name}{kind}", logs.display());
        Self {
            monitor: file("-monitor.sock"),
            serial: file("-serial.sock"),
            console: file("-console.log"),
            errors: file(".log"),
            trace: file("-trace.log"),
        }
    }
}

/// Where the guest finds a function: the port's address on its PCI bus.
pub(crate) fn port(index: usize) -> String {
    format!("0000:00:{:02x}.0", FIRST_SLOT + index)
}

/// The name of a function in QEMU.
pub(crate) fn writer(index: usize) -> String {
    format!("writer{index}")
}

/// The properties of an assigned function: driver, bus, and the rest.
pub(crate) fn function(options: &Options, index: usize, host: &str) -> Vec<(String, String)> {
    // "on" migrates without tracking too, by sending everything again and again; QEMU does not count
    // what the type1 container reports as tracking.
    let migration = match options.container {
        true => "on",
        false => "auto",
    };
    let mut all = vec![
        ("id", writer(index)),
        ("bus", format!("port{index}")),
        ("host", host.into()),
        ("enable-migration", migration.into()),
        // So nothing but the IOMMU tracks.
        ("x-device-dirty-page-tracking", "off".into()),
    ];
    if !options.container {
        all.push(("iommufd", "iommufd0".into()));
    }
    let named = all.into_iter().map(|(key, value)| (key.into(), value));
    named.collect()
}

/// Driver and properties of the memory module.
pub(crate) fn dimm() -> (&'static str, [(&'static str, &'static str); 1]) {
    ("pc-dimm", [("memdev", "more")])
}

/// The words after QEMU's name.
///
/// # Errors
///
/// The options do not go together.
pub(crate) fn arguments(
    options: &Options,
    files: &Files,
    plugged: &Plugged,
    incoming: bool,
) -> Result<Vec<String>> {
    let memory = options.memory()?;
    let (start, length) = options.region()?;
    let mut all: Vec<String> = vec![];
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| word.to_string()));

    add(&[
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
    ]);
    add(&[
        "-machine",
        &format!("q35,accel={},memory-backend=ram", options.accel),
    ]);
    // What runs in a virtual machine in a virtual machine shall need nothing special.
    add(&["-cpu", "qemu64", "-smp", "1"]);
    let plugs = options.scenario == Scenario::Memory;
    // A number without a unit is one of MiB.
    match plugs {
        true => add(&[
            "-m",
            &format!("size={memory}B,slots=1,maxmem={}B", memory + PLUGGABLE),
        ]),
        false => add(&["-m", &format!("size={memory}B")]),
    }
    add(&["-object", &backend(options.page_size, "ram", memory)]);
    if plugs {
        add(&["-object", &backend(options.page_size, "more", PLUGGABLE)]);
    }
    if plugged.dimm {
        let (driver, properties) = dimm();
        let words = properties.map(|(key, value)| format!(",{key}={value}"));
        add(&["-device", &format!("{driver},id={DIMM}{}", words.concat())]);
    }

    add(&["-kernel", &options.kernel.display().to_string()]);
    add(&["-initrd", &options.initrd.display().to_string()]);
    // Memory that is plugged has to be such that it can be unplugged.
    let append = format!(
        "console=ttyS0 panic=-1 kunit.enable=0 memmap={length:#x}${start:#x} memhp_default_state=online_movable {}",
        options.append
    );
    add(&["-append", append.trim_end()]);
    add(&["-serial", &format!("file:{}", files.console)]);
    let socket = |id: &str, path: &str| format!("socket,id={id},path={path},server=on,wait=off");
    add(&[
        "-chardev",
        &socket("guest", &files.serial),
        "-serial",
        "chardev:guest",
    ]);
    add(&[
        "-chardev",
        &socket("monitor", &files.monitor),
        "-mon",
        "chardev=monitor,mode=control",
    ]);

    add(&["-D", &files.trace]);
    trace::EVENTS
        .iter()
        .for_each(|event| add(&["-trace", event]));
    if !options.container {
        add(&["-object", "iommufd,id=iommufd0"]);
    }
    for (index, host) in plugged.hosts.iter().enumerate() {
        let (slot, number) = (FIRST_SLOT + index, index + 1);
        add(&[
            "-device",
            &format!(
            "pcie-root-port,id=port{index},bus=pcie.0,addr={slot:#x},chassis={number},slot={number}"
        ),
        ]);
        if let Some(host) = host {
            let properties = function(options, index, host);
            let words = properties
                .iter()
                .map(|(key, value)| format!(",{key}={value}"));
            add(&["-device", &format!("vfio-pci{}", words.collect::<String>())]);
        }
    }
    if incoming {
        // It stands still until it is told to go on: first the guest gets its command to compare.
        add(&["-incoming", "defer", "-S"]);
    }
    Ok(all)
}

/// The object that a part of the memory comes from.
fn backend(page_size: PageSize, id: &str, size: u64) -> String {
    match page_size.hugetlb() {
        Some(page) => format!(
            "memory-backend-memfd,id={id},size={size},hugetlb=on,hugetlbsize={page},prealloc=on"
        ),
        // Anonymous memory: only of that are large pages made without being asked for.
        None if page_size == PageSize::Transparent => {
            format!("memory-backend-ram,id={id},size={size},prealloc=on")
        }
        None => format!("memory-backend-memfd,id={id},size={size}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn line(words: &[&str], hosts: &[Option<&str>]) -> Result<String> {
        let options = Options::try_parse_from([&["vm-migrate"], words].concat())?;
        let plugged = Plugged {
            hosts: hosts.iter().map(|host| host.map(String::from)).collect(),
            dimm: options.scenario == Scenario::Memory,
        };
        let files = Files::new(Path::new("/logs"), "vm-1");
        Ok(arguments(&options, &files, &plugged, false)?.join(" "))
    }

    #[test]
    fn a_function_is_behind_a_port_of_its_own() -> Result<()> {
        let line = line(&[], &[Some("0000:00:0c.0"), None])?;
        for part in [
            "-machine q35,accel=kvm,memory-backend=ram -cpu qemu64",
            "-object iommufd,id=iommufd0",
            "-device pcie-root-port,id=port0,bus=pcie.0,addr=0x10,chassis=1,slot=1 -device \
             vfio-pci,id=writer0,bus=port0,host=0000:00:0c.0,enable-migration=auto,\
             x-device-dirty-page-tracking=off,iommufd=iommufd0",
            "memmap=0x8000000$0x4000000",
            "-chardev socket,id=guest,path=/logs/vm-1-serial.sock,server=on,wait=off",
        ] {
            assert!(line.contains(part), "{part}\n{line}");
        }
        assert_eq!(line.matches("pcie-root-port").count(), 2);
        assert_eq!(line.matches("vfio-pci").count(), 1);
        assert_eq!(port(1), "0000:00:11.0");
        Ok(())
    }

    #[test]
    fn memory_is_what_was_asked_for() -> Result<()> {
        for (size, part) in [
            ("4k", "memory-backend-memfd,id=ram,size=1073741824 "),
            (
                "thp",
                "memory-backend-ram,id=ram,size=1073741824,prealloc=on ",
            ),
            (
                "2m",
                "id=ram,size=1073741824,hugetlb=on,hugetlbsize=2097152,prealloc=on ",
            ),
            (
                "1g",
                "id=ram,size=1073741824,hugetlb=on,hugetlbsize=1073741824,prealloc=on ",
            ),
        ] {
            let line = line(&["--memory", "1G", "--page-size", size], &[])?;
            assert!(line.contains(part), "{size}: {line}");
        }
        let line = line(&["--scenario", "memory"], &[])?;
        assert!(
            line.contains("-m size=268435456B,slots=1,maxmem=402653184B")
                && line.contains("-device pc-dimm,id=dimm0,memdev=more"),
            "{line}"
        );
        Ok(())
    }

    #[test]
    fn the_container_needs_no_iommufd() -> Result<()> {
        let line = line(&["--container"], &[Some("0000:00:0c.0")])?;
        // Only names of events to trace have it.
        assert!(
            !line.contains("iommufd0") && line.contains("vfio-pci"),
            "{line}"
        );
        Ok(())
    }
}
