//! The nest: a small static program that runs attempts one after the other, each in namespaces of its
//! own, within one container or on a host. It is told what to do over its standard input and tells
//! what came of it over its standard output, in the frames of the library beside it.
//!
//! The first process moves into a user and a mount namespace (and, in them, serves); what it leaves
//! behind waits. Nothing here needs a privilege outside, and nothing outlives the process: attempts
//! end with the one that serves, that with the first, and all of them with their container.

mod attempt;
mod cell;
mod filter;
mod init;
mod leaving;
mod memory;
mod nursery;
mod program;
mod serve;
mod sys;
mod tree;
mod wire;
mod zygote;

use cell::USER;
use flakefarm_nest::{Ground, SetUp, Tell};
use std::fs;
use std::io::{self, Read, Write};
use sys::Side;
use wire::Wire;

/// Of a host's root: what attempts are outside, an ordinary user that owns nothing.
const NOBODY: u32 = 65_534;

fn main() {
    let wire = Wire::of_standard_streams().and_then(|mut wire| Ok((wire.set_up()?, wire)));
    sys::exit_now(match wire {
        Ok((Some(set_up), wire)) => move_in(wire, &set_up),
        Ok((None, _)) => 0,
        Err(error) => complain(&error.to_string()),
    });
}

fn complain(what: &str) -> i32 {
    eprintln!("flakefarm-nest: {what}");
    1
}

/// Forks the process that serves, into namespaces in which it may mount, and waits for it.
fn move_in(mut wire: Wire, set_up: &SetUp) -> i32 {
    let keeper = match &set_up.ground {
        Ground::Container => memory::Keeper::of_container(),
        Ground::Host { .. } => Some(memory::Keeper::Nest),
    };
    let network = if set_up.shared_network { 0 } else { libc::CLONE_NEWNET };
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | network;
    let outside = (sys::user(), sys::group());
    let cloned = io::pipe().and_then(|pipe| Ok((pipe, sys::clone(flags as u64)?)));
    let ((mut go_ahead, mut say_so), side) = match cloned {
        Ok(cloned) => cloned,
        Err(error) => {
            let why = format!("failed to make namespaces: {error}");
            return i32::from(wire.tell(&Tell::Failed(why)).is_err());
        }
    };
    match side {
        Side::Parent { child } => {
            drop(go_ahead);
            let mapped = map(child, outside);
            let word = mapped.as_ref().map_or_else(|error| error.as_bytes(), |()| b"go");
            if say_so.write_all(word).is_err() {
                sys::kill(child);
            }
            drop((say_so, wire));
            sys::wait(child).map_or(1, |waited| waited.exit_code)
        }
        Side::Child => {
            drop(say_so);
            let mut word = String::new();
            let told = go_ahead.read_to_string(&mut word).map_err(|error| error.to_string());
            let settled = told.and_then(|_| if word == "go" { settle(set_up, outside.0) } else { Err(word) });
            match settled {
                Ok(tree) => serve::serve(wire, set_up, tree, keeper),
                Err(why) => i32::from(wire.tell(&Tell::Failed(why)).is_err()),
            }
        }
    }
}

/// Gives the users of the child's namespace their counterparts here. Root gives it a user who is
/// nobody, beside root itself, which it needs until its root is built.
fn map(child: i32, (user, group): (u32, u32)) -> Result<(), String> {
    let write = |name: &str, content: &str| {
        fs::write(format!("/proc/{child}/{name}"), content)
            .map_err(|error| format!("failed to write {name} of a new user namespace: {error}"))
    };
    if user == 0 {
        write("uid_map", &format!("0 0 1\n{USER} {NOBODY} 1"))?;
        write("gid_map", &format!("0 0 1\n{USER} {NOBODY} 1"))
    } else {
        write("setgroups", "deny")?;
        write("uid_map", &format!("{USER} {user} 1"))?;
        write("gid_map", &format!("{USER} {group} 1"))
    }
}

/// Builds the root and becomes the user of attempts.
fn settle(set_up: &SetUp, outside: u32) -> Result<&'static str, String> {
    let failed = |doing: &str, error: io::Error| format!("failed to {doing}: {error}");
    sys::end_with_parent().map_err(|error| failed("follow its parent", error))?;
    let tree = tree::build(set_up)?;
    if outside == 0 {
        sys::become_user(USER, USER).map_err(|error| failed("become an ordinary user", error))?;
        // A change of users takes what lets a child map its own.
        sys::prctl(libc::PR_SET_DUMPABLE, 1).map_err(|error| failed("stay visible to itself", error))?;
        sys::end_with_parent().map_err(|error| failed("follow its parent", error))?;
    }
    if let Ground::Host { .. } = set_up.ground {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(|error| failed("refuse new privileges", error))?;
        sys::install_filter(&filter::of_host()).map_err(|error| failed("install a filter", error))?;
    }
    Ok(tree)
}
