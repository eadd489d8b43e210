//! A command to be copied.

use super::super::words;
use maud::{Markup, html};

pub(super) fn command(what: &str, text: &str) -> Markup {
    html! { div class="command" { span class="quiet" { (what) } code { (words::visible(text)) } } }
}
