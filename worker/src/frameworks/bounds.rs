//! How much an attempt may say, whatever it is: what comes out of a sandbox is untrusted, and a flood of it
//! must cost its attempt, not the worker.

use super::events::EndEvent;
use flakefarm_shared::outcome::Frame;
use std::time::Duration;

/// Bytes on the results channel that are not the plugin's; beyond them the attempt is ended.
pub(super) const FOREIGN_BYTES: u64 = 4 << 20;
/// Tests of one attempt.
pub(super) const TESTS: usize = 500_000;
/// Bytes of all their ids, and of what sources and parts say of them.
pub(super) const NAME_BYTES: usize = 64 << 20;
/// Files of one attempt that could not be collected or were skipped.
pub(super) const FILES: usize = 2_000;
/// Bytes of what tests printed, over one attempt; what comes later is left out.
pub(super) const OUTPUT_BYTES: usize = 256 << 20;
/// Groups of tests with one id that are named.
pub(super) const SHARED_IDS: usize = 20;

pub(super) const MESSAGE_CHARS: usize = 2_000;
const OUTPUT_CHARS: usize = 80 * 1024;
pub(super) const NAME_CHARS: usize = 500;
/// Directories that modules are named from.
pub(super) const DIRECTORIES: usize = 50;
const EXCEPTIONS: usize = 16;
const FRAMES: usize = 64;
const WARNINGS: usize = 8;
const CIRCUMSTANCES: usize = 16;
const CHANGES: usize = 400;
/// Failing tear-downs after one test.
const TORN_DOWN: usize = 16;
/// The same of one attempt.
pub(super) const TEAR_DOWNS: usize = 500;

/// Cuts what one test says to what the plugin would say at most, and times to what has passed: `elapsed`
/// since the attempt began, on so many CPUs.
pub(super) fn cut(end: &mut EndEvent, elapsed: Duration, cpus: u64) {
    let most = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    end.wall_us = end.wall_us.min(most);
    end.cpu_us = end.cpu_us.min(most.saturating_mul(cpus));
    for phase in end.phases_us.iter_mut().flatten() {
        *phase = (*phase).min(end.wall_us);
    }
    text(&mut end.message, MESSAGE_CHARS);
    text(&mut end.reason, MESSAGE_CHARS);
    end.warnings.truncate(WARNINGS);
    end.warnings.iter_mut().for_each(|warning| text(warning, NAME_CHARS));
    end.exceptions.truncate(EXCEPTIONS);
    end.exceptions.iter_mut().for_each(|name| text(name, NAME_CHARS));
    frames(&mut end.frames);
    end.torn_down.truncate(TORN_DOWN);
    for fixture in &mut end.torn_down {
        for name in [&mut fixture.name, &mut fixture.scope, &mut fixture.home] {
            text(name, NAME_CHARS);
        }
        text(&mut fixture.message, MESSAGE_CHARS);
        fixture.exceptions.truncate(EXCEPTIONS);
        fixture.exceptions.iter_mut().for_each(|name| text(name, NAME_CHARS));
        frames(&mut fixture.frames);
    }
    end.circumstances.truncate(CIRCUMSTANCES);
    end.output.iter_mut().chain(&mut end.captured).for_each(|output| text(output, OUTPUT_CHARS));
    end.changes.truncate(CHANGES);
    for change in &mut end.changes {
        for part in [&mut change.kind, &mut change.name, &mut change.before, &mut change.after] {
            text(part, MESSAGE_CHARS);
        }
    }
}

fn frames(frames: &mut Vec<Frame>) {
    frames.truncate(FRAMES);
    for frame in frames {
        text(&mut frame.path, NAME_CHARS);
        text(&mut frame.function, NAME_CHARS);
    }
}

/// Cuts `text` to so many characters.
pub(super) fn text(text: &mut String, chars: usize) {
    if let Some((end, _)) = text.char_indices().nth(chars) {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frameworks::events::{Event, parse};

    #[test]
    fn nothing_that_one_test_says_is_longer_than_the_plugin_would_say_it() {
        let long = "x".repeat(100_000);
        // Of what there are many of: longer and more than may be, and no more than this test has time for.
        let longer = "x".repeat(3_000);
        let many = vec![longer.as_str(); 1_000];
        let line = serde_json::json!({
            "e": "end", "test": "a", "i": 0, "outcome": "fail", "wall_us": u64::MAX, "cpu_us": u64::MAX,
            "phases_us": [u64::MAX, 0, 0], "warnings": many, "phase": "call", "kind": "exception",
            "exceptions": many, "message": long, "reason": long, "output": long, "captured": long,
            "frames": vec![serde_json::json!({ "path": longer, "line": 1, "function": longer }); 1_000],
            "changes": vec![serde_json::json!({ "kind": longer, "name": longer, "before": longer, "after": longer }); 1_000],
            "torn_down": vec![serde_json::json!({
                "name": longer, "scope": longer, "home": longer, "kind": "exception",
                "exceptions": vec![longer.as_str(); 100], "message": longer,
                "frames": vec![serde_json::json!({ "path": longer, "line": 1, "function": longer }); 100],
            }); 100],
        });
        let Some(Event::End(mut end)) = parse(line.to_string().as_bytes()) else { panic!("an event") };
        cut(&mut end, Duration::from_secs(3), 2);
        assert_eq!((end.wall_us, end.cpu_us, end.phases_us), (3_000_000, 6_000_000, Some([3_000_000, 0, 0])));
        let told = format!("{end:?}").len();
        assert!(told < 8 << 20, "{told} bytes are left of {}", line.to_string().len());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut cut = "aä漢b".to_owned();
        text(&mut cut, 3);
        assert_eq!(cut, "aä漢");
        text(&mut cut, 3);
        assert_eq!(cut, "aä漢");
    }
}
