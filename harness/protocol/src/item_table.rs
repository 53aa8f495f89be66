//! The item types of the Responses API with the fields that the official SDKs require of output items.

macro_rules! items {
    ($($variant:ident = $name:literal [$($field:literal),*])*) => {
        /// The type of an item.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ItemKind {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl ItemKind {
            /// Every known type.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The type's name as it stands in `type`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The type of that name, if it is known.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            /// The fields that an output item of this type must have besides `type`.
            pub const fn required(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($field),*],)* }
            }
        }
    };
}

items! {
    Message = "message" ["id", "content", "role", "status"]
    FileSearchCall = "file_search_call" ["id", "queries", "status"]
    FunctionCall = "function_call" ["arguments", "call_id", "name"]
    FunctionCallOutput = "function_call_output" ["id", "output", "status"]
    WebSearchCall = "web_search_call" ["id", "action", "status"]
    ComputerCall = "computer_call" ["id", "call_id", "pending_safety_checks", "status"]
    ComputerCallOutput = "computer_call_output" ["id", "call_id", "output", "status"]
    Reasoning = "reasoning" ["id", "summary"]
    Program = "program" ["id", "call_id", "code", "fingerprint"]
    ProgramOutput = "program_output" ["id", "call_id", "result", "status"]
    ToolSearchCall = "tool_search_call" ["id", "arguments", "execution", "status"]
    ToolSearchOutput = "tool_search_output" ["id", "execution", "status", "tools"]
    AdditionalTools = "additional_tools" ["id", "role", "tools"]
    Compaction = "compaction" ["id", "encrypted_content"]
    ImageGenerationCall = "image_generation_call" ["id", "status"]
    CodeInterpreterCall = "code_interpreter_call" ["id", "container_id", "status"]
    LocalShellCall = "local_shell_call" ["id", "action", "call_id", "status"]
    LocalShellCallOutput = "local_shell_call_output" ["id", "output"]
    ShellCall = "shell_call" ["id", "action", "call_id", "status"]
    ShellCallOutput = "shell_call_output" ["id", "call_id", "output", "status"]
    ApplyPatchCall = "apply_patch_call" ["id", "call_id", "operation", "status"]
    ApplyPatchCallOutput = "apply_patch_call_output" ["id", "call_id", "status"]
    McpCall = "mcp_call" ["id", "arguments", "name", "server_label"]
    McpListTools = "mcp_list_tools" ["id", "server_label", "tools"]
    McpApprovalRequest = "mcp_approval_request" ["id", "arguments", "name", "server_label"]
    McpApprovalResponse = "mcp_approval_response" ["id", "approval_request_id", "approve"]
    CustomToolCall = "custom_tool_call" ["call_id", "input", "name"]
    CustomToolCallOutput = "custom_tool_call_output" ["call_id", "output", "id", "status"]
}
