//! The program of an attempt: its variables, where it is found, and how a cell's first process starts it.

use crate::attempt::NotRun;
use crate::filter;
use crate::sys::{self, LaidOut, Program};
use flakefarm_nest::{Attempt, HOME, USER_NAME};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;

pub(crate) const HASH_SEED: &str = "PYTHONHASHSEED";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables of an attempt, over the nest's own.
pub(crate) fn variables(attempt: &Attempt, hash_seed: Option<u32>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = std::env::vars().collect();
    all.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
    for (name, value) in [("HOME", HOME), ("USER", USER_NAME), ("LOGNAME", USER_NAME)] {
        all.insert(name.to_owned(), value.to_owned());
    }
    if let Some(seed) = hash_seed {
        all.entry(HASH_SEED.to_owned()).or_insert_with(|| seed.to_string());
    }
    all.extend(attempt.variables.clone());
    all
}

/// A program as it will be found inside, by the PATH that it is given.
pub(crate) fn program(argv: &[String], variables: &BTreeMap<String, String>) -> Result<Program, NotRun> {
    let text =
        |text: String| CString::new(text).map_err(|_| NotRun::Failed("a text with NUL in it".to_owned()));
    let name = argv.first().ok_or_else(|| NotRun::Failed("no program to run".to_owned()))?;
    let candidates = if name.contains('/') {
        vec![name.clone()]
    } else {
        let path = variables.get("PATH").map_or(PATH, String::as_str);
        path.split(':').map(|directory| format!("{directory}/{name}")).collect()
    };
    Ok(Program::new(
        candidates.into_iter().map(text).collect::<Result<_, _>>()?,
        argv.iter().cloned().map(text).collect::<Result<_, _>>()?,
        variables.iter().map(|(name, value)| text(format!("{name}={value}"))).collect::<Result<_, _>>()?,
    ))
}

/// What a program is given beside its three streams, and what it is not let do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Nothing: its cell has closed what there is to close.
    Plainly,
    /// A zygote: its control, and this filter, behind which the privilege that it keeps is good for joining
    /// namespaces it is handed, and for nothing else.
    AsZygote { control: i32, filter: &'a [u8] },
}

impl Start<'_> {
    /// The filter of zygotes, made before anything is forked.
    pub(crate) fn zygote_filter() -> Vec<u8> {
        filter::of_zygote()
    }
}

/// Starts the program in the first process of a cell.
pub(crate) fn start(program: &LaidOut<'_>, how: Start<'_>) -> io::Result<i32> {
    // Or the program could look into this process, which has its user. Its own memory, when it has
    // become that program, it may look into as ever.
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    sys::clone_to_become(&|| {
        sys::default_signals();
        sys::new_session();
        if let Start::AsZygote { control, filter } = how {
            sys::hand_on(control);
            if let Err(why) = sys::install_filter(filter) {
                sys::complain(&[b"flakefarm: cannot install a filter: ", why.to_string().as_bytes(), b"\n"]);
                return 126;
            }
        }
        let why = io::Error::from_raw_os_error(program.execute()).to_string();
        sys::complain(&[b"flakefarm: cannot run `", program.name(), b"`: ", why.as_bytes(), b"\n"]);
        127
    })
}
