//! Turns a scenario's `model` into what the server sends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutpoint_protocol::api_error;
use cutpoint_recording::{LoadErrors, Recording};
use cutpoint_scenario::ast::{
    ModelScript, Reply, ReplyBody, ReplyEnd, ReplyPart, SideConversationScript,
};

use crate::server::case::{Script, ScriptedBody, ScriptedReply, SideConversation};

/// Why a scenario's `model` cannot be served. Each is a mistake of the scenario or of a recording.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A recording that is named and not there.
    #[error(
        "there is no recording `{name}`: neither {} nor {} exists",
        beside.display(),
        stored.display()
    )]
    NoRecording {
        /// Its name in the scenario.
        name: String,
        /// Where it was looked for first: beside the scenario.
        beside: PathBuf,
        /// Where it was looked for then: in the folder of recordings.
        stored: PathBuf,
    },
    /// A recording that cannot be read.
    #[error(transparent)]
    Load(#[from] LoadErrors),
}

/// What a scenario's `model` came to: thousands of schedules of it run one after the other.
#[derive(Debug, Clone)]
pub(crate) struct LoadedModel {
    model: ModelScript,
    file: PathBuf,
    recordings: PathBuf,
    /// What the main conversation is answered with.
    pub(crate) script: Script,
    /// What others are.
    pub(crate) side_conversations: Arc<[SideConversation]>,
}

impl LoadedModel {
    /// Loads what the model answers. A recording is looked for beside the scenario's file, then in
    /// `recordings`.
    ///
    /// # Errors
    /// If a recording can't be found or read.
    pub(crate) fn new(
        model: &ModelScript,
        file: &Path,
        recordings: &Path,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            script: load(model, file, recordings)?,
            side_conversations: side_conversations(model, file, recordings)?,
            model: model.clone(),
            file: file.to_owned(),
            recordings: recordings.to_owned(),
        })
    }

    /// Whether it was loaded from there.
    pub(crate) fn is_of(&self, model: &ModelScript, file: &Path, recordings: &Path) -> bool {
        self.file == file && self.recordings == recordings && self.model == *model
    }
}

fn load(model: &ModelScript, file: &Path, recordings: &Path) -> Result<Script, ModelError> {
    if let Some(recording) = &model.recording {
        return find(&recording.name, file, recordings).map(Script::Recording);
    }
    let replies = model
        .replies
        .iter()
        .map(|reply| scripted(reply, file, recordings));
    replies.collect::<Result<_, _>>().map(Script::Replies)
}

fn side_conversations(
    model: &ModelScript,
    file: &Path,
    recordings: &Path,
) -> Result<Arc<[SideConversation]>, ModelError> {
    let aside = |other: &SideConversationScript| {
        let replies = other.replies.iter();
        let replies = replies.map(|reply| scripted(reply, file, recordings));
        Ok(SideConversation {
            opening: other.opening.clone(),
            replies: replies.collect::<Result<_, ModelError>>()?,
        })
    };
    model.side_conversations.iter().map(aside).collect()
}

/// What is answered where a scenario has no reply left.
pub fn plain_reply() -> ScriptedReply {
    let text = "Done.".to_owned();
    ScriptedReply {
        body: ScriptedBody::Stream {
            parts: vec![ReplyPart::Text { text, chunks: 2 }],
            end: ReplyEnd::Completed,
        },
        lenient: false,
        text: "the plain reply".to_owned(),
    }
}

fn scripted(reply: &Reply, file: &Path, recordings: &Path) -> Result<ScriptedReply, ModelError> {
    let body = match &reply.body {
        ReplyBody::Stream { parts, end } => ScriptedBody::Stream {
            parts: parts.clone(),
            end: end.clone(),
        },
        ReplyBody::Status {
            status,
            retry_after_s,
            headers,
            body,
        } => {
            let mut headers = headers.clone();
            if let Some(seconds) = retry_after_s {
                headers.push(("retry-after".to_owned(), seconds.to_string()));
            }
            let own = || api_error::for_status(*status).body.to_string();
            let body = body.clone().unwrap_or_else(own);
            ScriptedBody::Status {
                status: *status,
                headers,
                body,
            }
        }
        ReplyBody::Recorded { name, exchange } => ScriptedBody::Recorded {
            recording: find(name, file, recordings)?,
            exchange: *exchange,
        },
    };
    Ok(ScriptedReply {
        body,
        lenient: reply.lenient,
        text: reply.to_string(),
    })
}

fn find(name: &str, file: &Path, recordings: &Path) -> Result<Arc<Recording>, ModelError> {
    let beside = file.parent().unwrap_or(Path::new("")).join(name);
    let candidates: [PathBuf; 2] = [beside, recordings.join(name)];
    let Some(path) = candidates.iter().find(|path| path.exists()) else {
        let [beside, stored] = candidates;
        return Err(ModelError::NoRecording {
            name: name.to_owned(),
            beside,
            stored,
        });
    };
    Ok(Arc::new(Recording::load(path)?))
}
