//! Commands that are interpreted instead of run.
//!
//! The interpreter knows the few words that scenarios use: `sleep`, `echo`, `printf`, `seq`, `cat`,
//! `test -e`, `true`, `false`, `exit`, `trap '' TERM`, statements joined by `;`, `&&` and `||`, and
//! `&`, which leaves one running beside the shell. Any other command prints nothing and succeeds: what
//! a scenario tests is the agent.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cutpoint_agent::{AbandonMode, Files, RunningTool, ToolCommand, ToolEvent, ToolRunner};
use cutpoint_trace::Process;
use tokio::time::Instant;

use super::memory_files::MemoryFiles;

/// The first process id that is given out.
const FIRST_PID: u32 = 1000;

/// A process that seems to run.
#[derive(Debug, Clone)]
struct SimulatedProcess {
    parent: u32,
    group: u32,
    command: String,
    /// When it ends by itself.
    until: Option<Instant>,
}

type ProcessTable = Arc<Mutex<BTreeMap<u32, SimulatedProcess>>>;

fn lock(table: &ProcessTable) -> MutexGuard<'_, BTreeMap<u32, SimulatedProcess>> {
    // Every change is one step, so a panic leaves a whole table.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Interprets commands, and pretends processes for them.
#[derive(Debug, Default)]
pub struct ScriptedTools {
    table: ProcessTable,
    files: MemoryFiles,
}

impl ScriptedTools {
    /// The processes that seem to run now.
    pub fn processes(&self) -> Vec<Process> {
        let now = Instant::now();
        let table = lock(&self.table);
        let alive = table
            .iter()
            .filter(|(_, known)| known.until.is_none_or(|until| now < until));
        let process = |(pid, known): (&u32, &SimulatedProcess)| Process {
            pid: *pid,
            ppid: known.parent,
            command: known.command.clone(),
        };
        alive.map(process).collect()
    }

    fn start(&self, parent: u32, group: Option<u32>, command: &str, until: Option<Instant>) -> u32 {
        let mut table = lock(&self.table);
        let pid = table
            .last_key_value()
            .map_or(FIRST_PID, |(last, _)| last + 1);
        let process = SimulatedProcess {
            parent,
            group: group.unwrap_or(pid),
            command: command.to_owned(),
            until,
        };
        table.insert(pid, process);
        pid
    }
}

/// What a command does next.
#[derive(Debug, Clone, PartialEq)]
enum ShellAction {
    Print(Vec<u8>),
    Sleep(Duration),
    Exit(i32),
}

/// A statement, and whether the shell goes on at once.
#[derive(Debug, Clone, PartialEq)]
struct Statement {
    words: String,
    background: bool,
}

fn statements(script: &str) -> Vec<Statement> {
    let mut found = Vec::new();
    let text = script.replace("&&", ";").replace('\n', ";");
    for piece in text.split_inclusive([';', '&']) {
        let background = piece.ends_with('&');
        let words = piece.trim_end_matches([';', '&']).trim().to_owned();
        if !words.is_empty() {
            found.push(Statement { words, background });
        }
    }
    found
}

fn act(words: &str, file: &dyn Fn(&str) -> Option<String>) -> Option<ShellAction> {
    if let Some((first, otherwise)) = words.split_once("||") {
        let first = act(first.trim(), file);
        return match first {
            Some(ShellAction::Exit(code)) if code != 0 => act(otherwise.trim(), file),
            first => first,
        };
    }
    let (name, rest) = words.split_once(' ').unwrap_or((words, ""));
    let plain = || rest.trim().trim_matches(['"', '\'']).to_owned();
    match name {
        "echo" => Some(ShellAction::Print((plain() + "\n").into_bytes())),
        "printf" => Some(ShellAction::Print(formatted(rest.trim()))),
        "sleep" => {
            let seconds: f64 = rest.trim().parse().ok()?;
            Duration::try_from_secs_f64(seconds)
                .ok()
                .map(ShellAction::Sleep)
        }
        "seq" => {
            let last: usize = rest.trim().parse().ok()?;
            let lines = (1..=last).map(|number| format!("{number}\n"));
            Some(ShellAction::Print(lines.collect::<String>().into_bytes()))
        }
        "cat" => Some(match file(rest.trim()) {
            Some(content) => ShellAction::Print(content.into_bytes()),
            None => ShellAction::Exit(1),
        }),
        "test" => match rest.trim().strip_prefix("-e ") {
            Some(path) if file(path.trim()).is_none() => Some(ShellAction::Exit(1)),
            _ => None,
        },
        "false" => Some(ShellAction::Exit(1)),
        "exit" => Some(ShellAction::Exit(rest.trim().parse().unwrap_or(0))),
        _ => None,
    }
}

/// What `printf 'format' words…` prints; each `%s` and `%d` takes a word.
fn formatted(rest: &str) -> Vec<u8> {
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let (format, words) = match quote {
        Some(quote) => rest[1..].split_once(quote).unwrap_or((&rest[1..], "")),
        None => rest.split_once(' ').unwrap_or((rest, "")),
    };
    let mut words = words.split_whitespace();
    let mut text = String::new();
    let mut pieces = format.split('%');
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        text.push_str(words.next().unwrap_or_default());
        text.push_str(piece.get(1..).unwrap_or_default());
    }
    unescaped(&text)
}

/// `\n` and bytes in octal, such as `\342`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut pieces = text.split('\\');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let octal = piece
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (byte, rest) = match (octal, piece.strip_prefix('n')) {
            (Some(byte), _) => (byte, &piece[3..]),
            (None, Some(rest)) => (b'\n', rest),
            (None, None) => (b'\\', piece),
        };
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

/// The script of a command line: what a shell was given, or the words themselves.
fn script(argv: &[String]) -> String {
    match argv {
        [shell, flag, script] if flag.starts_with('-') && shell.ends_with("sh") => script.clone(),
        words => words.join(" "),
    }
}

#[async_trait]
impl ToolRunner for ScriptedTools {
    fn files(&self) -> &dyn Files {
        &self.files
    }

    async fn spawn(&self, command: ToolCommand) -> io::Result<Box<dyn RunningTool>> {
        let script = script(&command.argv);
        let pid = self.start(1, None, &command.argv.join(" "), None);
        let mut acts = VecDeque::new();
        for statement in statements(&script) {
            let file = |path: &str| self.files.content(&command.cwd.join(path));
            let act = act(&statement.words, &file);
            if statement.background {
                let until = match act {
                    Some(ShellAction::Sleep(duration)) => Instant::now() + duration,
                    _ => Instant::now(),
                };
                self.start(pid, Some(pid), &statement.words, Some(until));
            } else {
                acts.extend(act);
            }
        }
        Ok(Box::new(SimulatedTool {
            table: self.table.clone(),
            pid,
            acts,
            until: None,
            ignores_term: script.contains("trap '' TERM"),
        }))
    }
}

struct SimulatedTool {
    table: ProcessTable,
    pid: u32,
    acts: VecDeque<ShellAction>,
    /// When the sleep that goes on ends.
    until: Option<Instant>,
    ignores_term: bool,
}

impl SimulatedTool {
    /// Ends the group.
    fn end(&self) {
        lock(&self.table).retain(|_, process| process.group != self.pid);
    }
}

impl Drop for SimulatedTool {
    fn drop(&mut self) {
        self.end();
    }
}

#[async_trait]
impl RunningTool for SimulatedTool {
    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }

    async fn next(&mut self) -> ToolEvent {
        loop {
            if let Some(until) = self.until {
                tokio::time::sleep_until(until).await;
                self.until = None;
            }
            match self.acts.pop_front() {
                Some(ShellAction::Print(text)) => return ToolEvent::Output(Bytes::from(text)),
                Some(ShellAction::Sleep(duration)) => self.until = Some(Instant::now() + duration),
                Some(ShellAction::Exit(code)) => {
                    self.end();
                    return ToolEvent::Exited(Some(code));
                }
                None => {
                    self.end();
                    return ToolEvent::Exited(Some(0));
                }
            }
        }
    }

    async fn kill(&mut self) -> Bytes {
        self.end();
        Bytes::new()
    }

    fn abandon(self: Box<Self>, how: AbandonMode) {
        match how {
            AbandonMode::Running => {}
            AbandonMode::ChildKilled => {
                lock(&self.table).remove(&self.pid);
            }
            AbandonMode::AskedToEnd if self.ignores_term => {}
            AbandonMode::AskedToEnd => self.end(),
        }
        std::mem::forget(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str) -> ToolCommand {
        ToolCommand {
            argv: ["bash", "-c", script].map(str::to_owned).to_vec(),
            cwd: "/lab".into(),
            env: Vec::new(),
            timeout: None,
        }
    }

    #[test]
    fn words_go_into_the_format() {
        assert_eq!(formatted("'file %s of %d\\n' 42 7"), b"file 42 of 7\n");
        assert_eq!(formatted("plain"), b"plain");
        assert_eq!(formatted("'\\342\\202\\254 a\\n'"), "€ a\n".as_bytes());
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_prints_sleeps_and_ends() {
        let tools = ScriptedTools::default();
        let start = Instant::now();
        let mut tool = tools
            .spawn(command("echo one; sleep 2.5 && false"))
            .await
            .unwrap();
        assert_eq!(tool.next().await, ToolEvent::Output("one\n".into()));
        assert_eq!(tools.processes().len(), 1);
        assert_eq!(tool.next().await, ToolEvent::Exited(Some(1)));
        assert_eq!(start.elapsed(), Duration::from_millis(2500));
        assert!(tools.processes().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_beside_the_shell_is_killed_with_it() {
        let tools = ScriptedTools::default();
        let mut tool = tools.spawn(command("sleep 81 & sleep 82")).await.unwrap();
        let alive: Vec<String> = tools.processes().into_iter().map(|it| it.command).collect();
        assert_eq!(alive, ["bash -c sleep 81 & sleep 82", "sleep 81"]);
        tool.kill().await;
        assert!(tools.processes().is_empty());
        std::mem::forget(tools.spawn(command("sleep 1 & sleep 5")).await.unwrap());
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(
            tools.processes().len(),
            1,
            "what was left alone ends by itself"
        );
    }
}
