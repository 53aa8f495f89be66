//! The stream event types of the Responses API with their fields, as the official SDKs declare them.

use crate::field_spec::{
    FieldSpec,
    JsonType::{Integer, List, Object, Text},
};

macro_rules! stream_events {
    ($($variant:ident = $name:literal { $($field:ident: $kind:ident $(($optional:ident))?),* })*) => {
        /// The type of a stream event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventKind {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl EventKind {
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

            /// The fields besides `type` and `sequence_number`.
            pub const fn fields(self) -> &'static [FieldSpec] {
                match self {
                    $(Self::$variant => &[$(FieldSpec {
                        name: stringify!($field),
                        kind: $kind,
                        optional: stream_events!(@optional $($optional)?),
                    }),*],)*
                }
            }
        }
    };
    (@optional optional) => { true };
    (@optional) => { false };
}

stream_events! {
    Error = "error" { message: Text, code: Text (optional), param: Text (optional) }
    AudioDelta = "response.audio.delta" { delta: Text }
    AudioDone = "response.audio.done" {}
    AudioTranscriptDelta = "response.audio.transcript.delta" { delta: Text }
    AudioTranscriptDone = "response.audio.transcript.done" {}
    CodeInterpreterCallCompleted = "response.code_interpreter_call.completed" { item_id: Text, output_index: Integer }
    CodeInterpreterCallInProgress = "response.code_interpreter_call.in_progress" { item_id: Text, output_index: Integer }
    CodeInterpreterCallInterpreting = "response.code_interpreter_call.interpreting" { item_id: Text, output_index: Integer }
    CodeInterpreterCallCodeDelta = "response.code_interpreter_call_code.delta" { delta: Text, item_id: Text, output_index: Integer }
    CodeInterpreterCallCodeDone = "response.code_interpreter_call_code.done" { code: Text, item_id: Text, output_index: Integer }
    CompactionCompacting = "response.compaction.compacting" { item_id: Text, output_index: Integer }
    Completed = "response.completed" { response: Object }
    ContentPartAdded = "response.content_part.added" { content_index: Integer, item_id: Text, output_index: Integer, part: Object }
    ContentPartDone = "response.content_part.done" { content_index: Integer, item_id: Text, output_index: Integer, part: Object }
    Created = "response.created" { response: Object }
    CustomToolCallInputDelta = "response.custom_tool_call_input.delta" { delta: Text, item_id: Text, output_index: Integer }
    CustomToolCallInputDone = "response.custom_tool_call_input.done" { input: Text, item_id: Text, output_index: Integer }
    Failed = "response.failed" { response: Object }
    FileSearchCallCompleted = "response.file_search_call.completed" { item_id: Text, output_index: Integer }
    FileSearchCallInProgress = "response.file_search_call.in_progress" { item_id: Text, output_index: Integer }
    FileSearchCallSearching = "response.file_search_call.searching" { item_id: Text, output_index: Integer }
    FunctionCallArgumentsDelta = "response.function_call_arguments.delta" { delta: Text, item_id: Text, output_index: Integer }
    FunctionCallArgumentsDone = "response.function_call_arguments.done" { arguments: Text, item_id: Text, output_index: Integer }
    ImageGenerationCallCompleted = "response.image_generation_call.completed" { item_id: Text, output_index: Integer }
    ImageGenerationCallGenerating = "response.image_generation_call.generating" { item_id: Text, output_index: Integer }
    ImageGenerationCallInProgress = "response.image_generation_call.in_progress" { item_id: Text, output_index: Integer }
    ImageGenerationCallPartialImage = "response.image_generation_call.partial_image" { item_id: Text, output_index: Integer, partial_image_b64: Text, partial_image_index: Integer, background: Text (optional), output_format: Text (optional), quality: Text (optional), size: Text (optional) }
    InProgress = "response.in_progress" { response: Object }
    Incomplete = "response.incomplete" { response: Object }
    McpCallCompleted = "response.mcp_call.completed" { item_id: Text, output_index: Integer }
    McpCallFailed = "response.mcp_call.failed" { item_id: Text, output_index: Integer }
    McpCallInProgress = "response.mcp_call.in_progress" { item_id: Text, output_index: Integer }
    McpCallArgumentsDelta = "response.mcp_call_arguments.delta" { delta: Text, item_id: Text, output_index: Integer }
    McpCallArgumentsDone = "response.mcp_call_arguments.done" { arguments: Text, item_id: Text, output_index: Integer }
    McpListToolsCompleted = "response.mcp_list_tools.completed" { item_id: Text, output_index: Integer }
    McpListToolsFailed = "response.mcp_list_tools.failed" { item_id: Text, output_index: Integer }
    McpListToolsInProgress = "response.mcp_list_tools.in_progress" { item_id: Text, output_index: Integer }
    OutputItemAdded = "response.output_item.added" { item: Object, output_index: Integer }
    OutputItemDone = "response.output_item.done" { item: Object, output_index: Integer }
    OutputTextAnnotationAdded = "response.output_text.annotation.added" { annotation_index: Integer, content_index: Integer, item_id: Text, output_index: Integer, annotation: Object (optional) }
    OutputTextDelta = "response.output_text.delta" { content_index: Integer, delta: Text, item_id: Text, logprobs: List, output_index: Integer }
    OutputTextDone = "response.output_text.done" { content_index: Integer, item_id: Text, logprobs: List, output_index: Integer, text: Text }
    Queued = "response.queued" { response: Object }
    ReasoningSummaryPartAdded = "response.reasoning_summary_part.added" { item_id: Text, output_index: Integer, part: Object, summary_index: Integer }
    ReasoningSummaryPartDone = "response.reasoning_summary_part.done" { item_id: Text, output_index: Integer, part: Object, summary_index: Integer, status: Text (optional) }
    ReasoningSummaryTextDelta = "response.reasoning_summary_text.delta" { delta: Text, item_id: Text, output_index: Integer, summary_index: Integer }
    ReasoningSummaryTextDone = "response.reasoning_summary_text.done" { item_id: Text, output_index: Integer, summary_index: Integer, text: Text }
    ReasoningTextDelta = "response.reasoning_text.delta" { content_index: Integer, delta: Text, item_id: Text, output_index: Integer }
    ReasoningTextDone = "response.reasoning_text.done" { content_index: Integer, item_id: Text, output_index: Integer, text: Text }
    RefusalDelta = "response.refusal.delta" { content_index: Integer, delta: Text, item_id: Text, output_index: Integer }
    RefusalDone = "response.refusal.done" { content_index: Integer, item_id: Text, output_index: Integer, refusal: Text }
    ShellCallCommandAdded = "response.shell_call_command.added" { command: Text, command_index: Integer, output_index: Integer }
    ShellCallCommandDelta = "response.shell_call_command.delta" { command_index: Integer, delta: Text, output_index: Integer, obfuscation: Text (optional) }
    ShellCallCommandDone = "response.shell_call_command.done" { command: Text, command_index: Integer, output_index: Integer }
    ShellCallOutputContentDelta = "response.shell_call_output_content.delta" { command_index: Integer, delta: Object, item_id: Text, output_index: Integer }
    ShellCallOutputContentDone = "response.shell_call_output_content.done" { command_index: Integer, item_id: Text, output: List, output_index: Integer }
    WebSearchCallCompleted = "response.web_search_call.completed" { item_id: Text, output_index: Integer }
    WebSearchCallInProgress = "response.web_search_call.in_progress" { item_id: Text, output_index: Integer }
    WebSearchCallSearching = "response.web_search_call.searching" { item_id: Text, output_index: Integer }
}
