// SPDX-License-Identifier: GPL-2.0

//! Random inputs without libFuzzer, for machines where it cannot be built.
//!
//! Accepts the most important arguments of libFuzzer: it runs each file once, runs files in
//! directories and then mutates them at random for the time of `-max_total_time=`, and stores a
//! failing input at the place of `-artifact_prefix=`.

use std::{
    fs,
    panic::catch_unwind,
    path::Path,
    process::ExitCode,
    time::{
        Duration,
        Instant, //
    }, //
};

const MOST_BYTES: usize = 900;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end
    }

    /// A mutation of an existing input.
    fn change(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();

        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            let byte = self.next() as u8;

            match self.below(4) {
                0 => bytes.insert(at, byte),
                1 => bytes.extend((0..self.below(100)).map(|_| self.next() as u8)),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => bytes[at] = byte,
                _ => bytes.push(byte),
            }
        }
        bytes.truncate(MOST_BYTES);
        bytes
    }
}

/// The parsed arguments.
#[derive(Default)]
struct Arguments {
    files: Vec<String>,
    inputs: Vec<Vec<u8>>,
    time: Duration,
    seed: u64,
    artifacts: String,
}

impl Arguments {
    fn read() -> Result<Self, String> {
        let mut read = Self::default();

        for argument in std::env::args().skip(1) {
            if let Some(option) = argument.strip_prefix('-') {
                let (name, value) = option.split_once('=').unwrap_or((option, ""));
                let number = || {
                    value
                        .parse()
                        .map_err(|_| format!("-{name}= takes a number, not '{value}'"))
                };

                match name {
                    "max_total_time" => read.time = Duration::from_secs(number()?),
                    "seed" => read.seed = number()?,
                    "artifact_prefix" => read.artifacts = value.into(),
                    // Ignores the others.
                    _ => {}
                }
            } else if Path::new(&argument).is_dir() {
                read.inputs
                    .extend(read_all(&argument).map_err(|e| format!("{argument}: {e}"))?);
            } else {
                read.files.push(argument);
            }
        }
        Ok(read)
    }
}

fn read_all(directory: &str) -> std::io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<_> = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;

    files.sort();
    files.into_iter().map(fs::read).collect()
}

/// Runs the target as the arguments say.
pub fn run(target: fn(&[u8])) -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::FAILURE;
        }
    };

    for file in &arguments.files {
        match fs::read(file) {
            Ok(bytes) => target(&bytes),
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    if !arguments.files.is_empty() {
        return ExitCode::SUCCESS;
    }

    let mut random = Random(arguments.seed | 1 << 40);
    let mut inputs = arguments.inputs;
    let end = Instant::now() + arguments.time;
    let mut runs = 0u64;

    if inputs.is_empty() {
        inputs.push(Vec::new());
    }
    while runs < inputs.len() as u64 || Instant::now() < end {
        let bytes = match inputs.get(runs as usize) {
            Some(bytes) => bytes.clone(),
            None => {
                let from = random.below(inputs.len());

                random.change(&inputs[from])
            }
        };

        if catch_unwind(|| target(&bytes)).is_err() {
            let file = format!("{}crash-{:x}", arguments.artifacts, random.next());

            match fs::write(&file, &bytes) {
                Ok(()) => eprintln!("Test unit written to {file}"),
                Err(error) => eprintln!("{file}: {error}"),
            }
            return ExitCode::FAILURE;
        }
        runs += 1;
    }
    println!("Done {runs} runs in {} second(s)", arguments.time.as_secs());
    ExitCode::SUCCESS
}
