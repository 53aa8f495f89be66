//! The reference agent, in this process.

mod session;
pub(super) mod setup;
mod store_log;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use cutpoint_agent::Defect;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::{AgentInfo, Feature};

use self::session::InProcessSession;
use super::agent_kind::{AgentKind, Choice, Declaration, Form, LaunchContext, Offer};
use super::json_rpc::{self, JsonRpcSession, Launch};
use super::reference::{self, Access};
use super::{AgentError, AgentSession, CaseEnv, Driver};

/// `--agent reference`
pub struct ReferenceAgent;

const DECLARATION: Declaration = Declaration {
    name: "reference",
    forms: &[Form {
        suffix: "",
        help: "the embedded reference agent, in this process (the default)",
    }],
    driver: "in-process",
    takes_defects: true,
    shell_tools: reference::SHELL_TOOLS,
    marker: reference::MARKER,
    rollout: reference::ROLLOUT,
    how_to_get: "it is part of cutpoint",
};

const ACCESS: Access = Access {
    in_process: true,
    json_rpc: false,
    is_reference: true,
};

#[async_trait]
impl AgentKind for ReferenceAgent {
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
        Ok(Arc::new(ReferenceDriver::new(context.defects.clone())))
    }
}

/// The driver.
#[derive(Debug, Clone, Default)]
pub struct ReferenceDriver {
    defects: Vec<Defect>,
}

impl ReferenceDriver {
    /// The reference agent with these planted defects.
    pub fn new(defects: Vec<Defect>) -> Self {
        Self { defects }
    }
}

#[async_trait]
impl Driver for ReferenceDriver {
    fn info(&self, needs: &BTreeSet<Capability>) -> AgentInfo {
        let access = ACCESS.for_needs(needs);
        let driver = if access.json_rpc {
            json_rpc::DRIVER
        } else {
            DECLARATION.driver
        };
        access.info(reference::NAME, driver, &self.defects)
    }

    fn capabilities(&self, needs: &BTreeSet<Capability>) -> BTreeSet<Capability> {
        let can = ACCESS.for_needs(needs).capabilities();
        can.into_iter().map(|(it, _)| it).collect()
    }

    async fn start(&self, env: CaseEnv) -> Result<Box<dyn AgentSession>, AgentError> {
        let defects = self.defects.iter().copied().collect();
        if ACCESS.for_needs(&env.needs).json_rpc {
            return JsonRpcSession::start(env, Launch::InProcess(defects)).await;
        }
        InProcessSession::start(env, defects).await
    }
}
