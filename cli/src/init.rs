//! `flakefarm init`: a commented configuration from what is detected.

use crate::args::InitArgs;
use crate::ask::{config_complaint, describe, project_root};
use crate::exit::{Complaint, Exit};
use crate::output;
use crate::say::say;
use flakefarm_project::config::{FILE_NAME, LoadedProject, init_text};

pub(crate) fn init(args: &InitArgs) -> Result<Exit, Complaint> {
    let root = project_root(&args.path)?;
    let file = root.join(FILE_NAME);
    if file.exists() && !args.force && !args.print {
        return Err(
            Complaint::usage(format!("{} exists already", file.display())).hint("--force replaces it")
        );
    }
    let detected = LoadedProject::load(&root, None, &[]).map_err(|error| config_complaint(&error))?;
    let text = init_text(&detected);
    if args.print {
        output::print(&text)?;
    } else {
        output::write_file(&file, &text)?;
        say(format!("wrote {}: {}", file.display(), describe(&detected)));
    }
    Ok(Exit::Clean)
}
