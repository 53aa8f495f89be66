//! The reference agent through its JSON-RPC front, in this process or as one of its own: the same
//! client over other pipes.

mod connection;
mod inbox;
mod ops;
mod session;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_agent::{Defect, DefectSet};
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{AgentInfo, Feature};

pub(super) use self::session::JsonRpcSession;
use super::agent_kind::{AgentKind, Choice, Declaration, Form, LaunchContext, Offer};
use super::kit::program::SessionProgram;
use super::reference::{self, Access};
use super::{AgentError, AgentSession, CaseEnv, Driver};

/// How the driver is called.
pub(super) const DRIVER: &str = "json-rpc";
/// The options with which `cutpoint agent` has this front.
pub(super) const OPTIONS: &[&str] = &["--jsonrpc"];

/// How the agent is started.
#[derive(Debug, Clone)]
pub(super) enum Launch {
    /// In this process, with planted defects.
    InProcess(DefectSet),
    /// In a process of its own.
    Process(SessionProgram),
}

/// `--agent reference-jsonrpc`
pub struct ReferenceFront;

const DECLARATION: Declaration = Declaration {
    name: "reference-jsonrpc",
    forms: &[Form {
        suffix: "",
        help: "the same through its JSON-RPC front, in every scenario that this can run",
    }],
    driver: DRIVER,
    takes_defects: true,
    shell_tools: reference::SHELL_TOOLS,
    marker: reference::MARKER,
    rollout: reference::ROLLOUT,
    how_to_get: "it is part of cutpoint",
};

const ACCESS: Access = Access {
    in_process: false,
    json_rpc: true,
    is_reference: true,
};

#[async_trait]
impl AgentKind for ReferenceFront {
    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn capabilities(&self) -> Offer<Capability> {
        ACCESS.capabilities()
    }

    fn features(&self) -> Offer<Feature> {
        ACCESS.features()
    }

    async fn driver(
        &self,
        _: &Choice,
        context: &LaunchContext,
    ) -> Result<Arc<dyn Driver>, AgentError> {
        Ok(Arc::new(JsonRpcDriver {
            program: SessionProgram::reference(OPTIONS, context),
            defects: context.defects.clone(),
        }))
    }
}

struct JsonRpcDriver {
    program: SessionProgram,
    defects: Vec<Defect>,
}

#[async_trait]
impl Driver for JsonRpcDriver {
    fn info(&self, _needs: &BTreeSet<Capability>) -> AgentInfo {
        ACCESS.info(reference::NAME, DRIVER, &self.defects)
    }

    fn capabilities(&self, _needs: &BTreeSet<Capability>) -> BTreeSet<Capability> {
        let can = ACCESS.capabilities();
        can.into_iter().map(|(it, _)| it).collect()
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn AgentSession>, AgentError> {
        JsonRpcSession::start(env, Launch::Process(self.program.clone())).await
    }
}
