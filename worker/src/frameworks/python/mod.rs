//! What frameworks of Python have in common: the part of the plugin that knows none of them, how an attempt is
//! started and asked, and what a world is to an interpreter.

mod world;

pub(crate) use world::PluginWorld;
pub use world::variables;

use super::seal::Nonce;
use flakefarm_shared::{Detail, Order, ProjectSpec, TestId, World};
use serde::Serialize;

/// Where the plugin lies in the image.
pub const PLUGIN_DIRECTORY: &str = "/flakefarm/plugin";

/// Files that every framework's plugin has, by name below [`PLUGIN_DIRECTORY`]. They need nothing but the
/// interpreter.
pub(super) const FILES: [(&str, &str); 13] = [
    ("run.py", include_str!("plugin/run.py")),
    ("flakefarm_channel.py", include_str!("plugin/flakefarm_channel.py")),
    ("flakefarm_choice.py", include_str!("plugin/flakefarm_choice.py")),
    ("flakefarm_clock.py", include_str!("plugin/flakefarm_clock.py")),
    ("flakefarm_descriptors.py", include_str!("plugin/flakefarm_descriptors.py")),
    ("flakefarm_errors.py", include_str!("plugin/flakefarm_errors.py")),
    ("flakefarm_in_hand.py", include_str!("plugin/flakefarm_in_hand.py")),
    ("flakefarm_network.py", include_str!("plugin/flakefarm_network.py")),
    ("flakefarm_quick_fork.py", include_str!("plugin/flakefarm_quick_fork.py")),
    ("flakefarm_risks.py", include_str!("plugin/flakefarm_risks.py")),
    ("flakefarm_sources.py", include_str!("plugin/flakefarm_sources.py")),
    ("flakefarm_state.py", include_str!("plugin/flakefarm_state.py")),
    ("flakefarm_world.py", include_str!("plugin/flakefarm_world.py")),
];

/// A shell command that compiles the plugin in an image. Times do not matter to this kind of bytecode.
pub(crate) fn compiles_plugin(interpreter: &str) -> String {
    format!("{interpreter} -m compileall -q --invalidation-mode unchecked-hash {PLUGIN_DIRECTORY}")
}

/// The program of one attempt; its working directory is the project's root, and its stdin a
/// [`request`].
pub fn argv(project: &ProjectSpec) -> Vec<String> {
    vec![project.environment.python.clone(), format!("{PLUGIN_DIRECTORY}/run.py")]
}

/// The program that collects everything, then forks an attempt whenever it is asked to. Its stdin is a
/// [`fork_server_request`], that of each attempt a [`request`].
pub fn fork_server(project: &ProjectSpec) -> Vec<String> {
    let mut argv = argv(project);
    argv.push("--fork-server".to_owned());
    argv
}

/// What a [`fork_server`] prepares itself for.
pub fn fork_server_request(project: &ProjectSpec) -> String {
    let everything = request(
        project,
        &RunRequest::Run { tests: None, order: Order::Given, detail: Detail::Outcomes, world: World::Plain },
        &Nonce::new(),
    );
    String::from_utf8(everything).expect("JSON is UTF-8")
}

/// `interpreter -m MODULE` with the project's arguments, as typed in a shell.
pub(super) fn module_command(project: &ProjectSpec, module: &str) -> String {
    let mut command = format!("{} -m {module}", project.environment.python);
    for argument in &project.arguments {
        command.push(' ');
        command.push_str(&shell_quoted(argument));
    }
    command
}

pub(super) fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What to ask of an attempt.
#[derive(Debug, Clone, Copy)]
pub enum RunRequest<'a> {
    /// Collect, run nothing.
    List,
    /// Run tests.
    Run {
        /// These, or everything that is collected.
        tests: Option<&'a [TestId]>,
        /// In this order.
        order: Order,
        /// Telling this much.
        detail: Detail,
        /// With this changed around them.
        world: World,
    },
}

#[derive(Serialize)]
struct Request<'a> {
    v: u32,
    framework: &'static str,
    mode: &'static str,
    paths: &'a [String],
    arguments: &'a [String],
    tests: Option<&'a [TestId]>,
    order: RequestOrder,
    #[serde(skip_serializing_if = "Detail::is_outcomes")]
    detail: Detail,
    #[serde(skip_serializing_if = "PluginWorld::is_plain")]
    world: PluginWorld,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum RequestOrder {
    Given,
    Reversed,
    Shuffled { seed: u64 },
    Listed,
}

/// The request in the form that the plugin reads from its stdin, to the end: the attempt's nonce on a line of
/// its own, then what is asked for.
pub fn request(project: &ProjectSpec, request: &RunRequest<'_>, nonce: &Nonce) -> Vec<u8> {
    let (mode, tests, order, detail, world) = match *request {
        RunRequest::List => ("list", None, RequestOrder::Given, Detail::Outcomes, World::Plain),
        RunRequest::Run { tests, order, detail, world } => {
            let order = match order {
                Order::Given => RequestOrder::Given,
                Order::Reversed => RequestOrder::Reversed,
                Order::Shuffled { seed } => RequestOrder::Shuffled { seed },
                Order::AsListed => RequestOrder::Listed,
            };
            ("run", tests, order, detail, world)
        }
    };
    let (paths, arguments) = (&project.test_paths, &project.arguments);
    let world = PluginWorld::of(world);
    let framework = project.framework.word();
    let request = Request { v: 2, framework, mode, paths, arguments, tests, order, detail, world };
    let mut text = format!("{}\n", nonce.as_str()).into_bytes();
    serde_json::to_writer(&mut text, &request).expect("a request serialises");
    text
}
