//! The digest as one self-contained page: no script, nothing loaded; text is escaped by the template.

use super::{Digest, markdown};
use crate::history::moves::Move;
use crate::notify::message::one_line;
use crate::report::html::page;
use maud::html;

/// Writes it.
pub fn render(digest: &Digest) -> String {
    let title = format!("{}: {}", one_line(&digest.project), digest.headline());
    page(
        &title,
        html! {
                    header { h1 { (one_line(&digest.project)) } p { (digest.from) " to " (digest.to) } }
                    main {
                        section {
                            h2 { (digest.headline()) }
                            p { (digest.runs) " runs of tests, " (digest.failures) " of them failed. " (markdown::recovery(&digest.recovery, &digest.recovery_before)) }
                            p {
                                (markdown::counted(digest.cost.failed_pipelines, "pipeline", "pipelines")) " broken by flaky tests, "
                                (digest.cost.reruns) " started again (" (format!("{:.0}", digest.cost.rerun_minutes)) " minutes), "
                                (format!("{:.0}", digest.cost.farm_minutes)) " minutes on the farm."
                                @if digest.repairs.tried > 0 {
                                    " Repairs proved: " (digest.repairs.proved) " of " (digest.repairs.tried) "."
                                }
                            }
                        }
                        @if !digest.proposed.is_empty() {
                            section {
                                h2 { "Proved patches" }
                                ul { @for (repair, mended) in &digest.proposed { li { code { (one_line(&mended.join(" "))) } ": flakefarm repair --show " (repair) } } }
                            }
                        }
                        @for (moved, heading) in [(Move::New, "Newly flaky"), (Move::Worse, "Worse"), (Move::Better, "Better"), (Move::Gone, "Fixed")] {
                            @let tests: Vec<_> = digest.moved.iter().filter(|test| test.moved == moved).collect();
                            @if !tests.is_empty() {
                                section {
                                    h2 { (heading) }
                                    ul { @for test in &tests {
                                        li { code { (one_line(&test.test)) } ": " (test.now.failures) " of " (test.now.runs) " runs failed, before " (test.before.failures) " of " (test.before.runs) (digest.owner(&test.test, one_line)) }
                                    } }
                                    @let all = digest.moves.get(moved.word()).copied().unwrap_or(0);
                                    @if all > tests.len() as u64 { p { "and " (all - tests.len() as u64) " more" } }
                                }
                            }
                        }
                        @if digest.quarantine.entries > 0 || !digest.quarantine.expired.is_empty() {
                            section {
                                h2 { "Quarantine" }
                                p { (markdown::counted(digest.quarantine.entries, "entry", "entries")) "; " (digest.quarantine.entered) " entered, " (digest.quarantine.left) " left healthy" }
                                ul { @for test in &digest.quarantine.expired { li { "expired: " code { (one_line(test)) } (digest.owner(test, one_line)) } } }
                            }
                        }
                        @if !digest.causes.is_empty() {
                            section { h2 { "Causes" } ul { @for (cause, tests) in &digest.causes { li { (one_line(cause)) ": " (tests) } } } }
                        }
                        @if !digest.priorities.is_empty() {
                            section {
                                h2 { "To be mended first" }
                                table {
                                    tr { th { "test" } th.r { "cost" } th.r { "chance" } th { "cause" } @if !digest.owners.is_empty() { th { "owner" } } }
                                    @for priority in &digest.priorities {
                                        tr {
                                            td style="overflow-wrap: anywhere" { code { (one_line(&priority.test)) } }
                                            td.r { (format!("{:.0}\u{a0}min", priority.minutes)) }
                                            td.r { (format!("{:.0}\u{a0}%", priority.chance * 100.0)) }
                                            td { (priority.cause.as_deref().map_or_else(|| "not\u{a0}known\u{a0}yet".to_owned(), one_line)) }
                                            @if !digest.owners.is_empty() { td { (digest.owners.get(&priority.test).map_or_else(String::new, |owner| one_line(owner))) } }
                                        }
                                    }
                                }
                            }
                        }
                        @if !digest.advice.is_empty() {
                            section { h2 { "To be typed" } ul { @for advice in &digest.advice {
                                li { (one_line(&advice.why)) ": " code { (one_line(&advice.command)) } }
                            } } }
                        }
                    }
                    footer { "flakefarm · " (digest.schema) }
        },
    )
}
