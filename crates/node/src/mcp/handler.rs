//! The server as the protocol sees it: tools, memories as resources, prompts, completion of projects.

use hearth_memory::{Error, Memories};
use hearth_protocol::memory::{MOST_FOUND, Search};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, CompletionInfo,
    CustomRequest, CustomResult, ErrorCode, GetPromptRequestParams, GetPromptResponse,
    GetPromptResult, Implementation, InitializeRequestParams, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    Reference, Resource, ResourceContents, ResourceTemplate, ServerCapabilities, ServerConfig,
    Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Scope, prompts, text, tools};

/// One memory as a resource.
const MEMORY: &str = "memory://memories/";
const MEMORY_TEMPLATE: &str = "memory://memories/{id}";
/// The newest memories of a project as a resource.
const PROJECT: &str = "memory://projects/";
const PROJECT_TEMPLATE: &str = "memory://projects/{project}";
/// Resources on a page.
const PAGE: usize = 50;

/// The memory as an MCP server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    memories: Memories,
    scope: Scope,
    version: &'static str,
}

impl Server {
    pub fn new(memories: Memories, scope: Scope, version: &'static str) -> Self {
        Self {
            memories,
            scope,
            version,
        }
    }

    /// Runs `work` where it may block. It goes on when nobody waits any more.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Memories, &Scope) -> T + Send + 'static,
    ) -> Result<T, ErrorData> {
        let server = self.clone();
        crate::trace::spawn_blocking(move || work(&server.memories, &server.scope))
            .await
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))
    }
}

/// An error of the memory where there is no tool's result to carry it.
fn refused(error: &Error) -> ErrorData {
    match error {
        Error::Unknown(id) => no_resource(&format!("{MEMORY}{id}")),
        Error::Invalid { .. }
        | Error::Unreadable { .. }
        | Error::Superseded { .. }
        | Error::Withdrawn(_) => ErrorData::invalid_params(error.to_string(), None),
        Error::Encoder(_) | Error::Approximate(_) | Error::Database(_) => {
            tracing::warn!(%error, "a resource could not be read");
            ErrorData::internal_error(error.to_string(), None)
        }
    }
}

/// The error of an address that leads nowhere, which is data of it too.
fn no_resource(uri: &str) -> ErrorData {
    let message =
        format!("there is no resource {uri}; there are {MEMORY_TEMPLATE} and {PROJECT_TEMPLATE}");
    ErrorData::resource_not_found(message, Some(json!({"uri": uri})))
}

/// Who calls, as it calls itself. Over HTTP only clients since 2026-07-28 say it with every request.
fn client(context: &RequestContext<RoleServer>) -> Option<String> {
    let client = context.client_info()?;
    // What `rmcp` puts where nobody said anything.
    (client != Implementation::default()).then_some(client.name)
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_prompts()
            .enable_tools()
            .enable_resources()
            .enable_completions()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(
                Implementation::new("hearth", self.version).with_title("Hearth's memory"),
            )
            .with_instructions(tools::instructions(&self.scope))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools: Vec<Tool> = tools::of(&self.scope).cloned().collect();
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let client = client(&context);
        let name = request.name.clone();
        let arguments = request.arguments.unwrap_or_default();
        let work = move |memories: &Memories, scope: &Scope| {
            tools::call(
                memories,
                scope,
                client,
                &request.name,
                arguments,
                Timestamp::now(),
            )
        };
        match self.blocking(work).await? {
            Some(result) => Ok(result.into()),
            None => {
                let names: Vec<&str> = tools::of(&self.scope).map(|tool| &*tool.name).collect();
                let only = if self.scope.read_only {
                    ", which only read"
                } else {
                    ""
                };
                let message = format!(
                    "there is no tool `{name}` in this session; there are {}{only}",
                    names.join(", ")
                );
                Err(ErrorData::invalid_params(message, None))
            }
        }
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let cursor = request.and_then(|request| request.cursor);
        let work = move |memories: &Memories, scope: &Scope| {
            let search = Search {
                project: scope.project(None),
                limit: Some(PAGE),
                ..Search::default()
            };
            memories.list(&search, cursor.as_deref())
        };
        let listed = self.blocking(work).await?.map_err(|error| match error {
            Error::Invalid { .. } => ErrorData::invalid_params(
                "cursor: give the nextCursor of the page before, or none for the first page",
                None,
            ),
            error => refused(&error),
        })?;
        let resource = |memory: &hearth_protocol::memory::Memory| {
            Resource::new(format!("{MEMORY}{}", memory.id), memory.id.clone())
                .with_title(text::title(memory))
                .with_description(text::description(memory))
                .with_mime_type("text/plain")
        };
        let mut page =
            ListResourcesResult::with_all_items(listed.memories.iter().map(resource).collect());
        page.next_cursor = listed.next;
        Ok(page)
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let memory = ResourceTemplate::new(MEMORY_TEMPLATE, "memory")
            .with_title("A memory")
            .with_description("One memory whole, with what it superseded")
            .with_mime_type("text/plain");
        let project = ResourceTemplate::new(PROJECT_TEMPLATE, "project")
            .with_title("The newest memories of a project")
            .with_description("Its memories and those of every project, newest first")
            .with_mime_type("text/plain");
        Ok(ListResourceTemplatesResult::with_all_items(vec![
            memory, project,
        ]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri.clone();
        let text = self
            .blocking(move |memories, _| read(memories, &uri))
            .await??;
        let contents = ResourceContents::text(text, request.uri);
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::of(&self.scope)))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let work = move |memories: &Memories, scope: &Scope| {
            let arguments = request.arguments.unwrap_or_default();
            prompts::get(memories, scope, &request.name, &arguments, Timestamp::now())
        };
        let message = self.blocking(work).await?.map_err(|error| match error {
            prompts::Refused::Asked(reason) => ErrorData::invalid_params(reason, None),
            prompts::Refused::Failed(error) => refused(&error),
        })?;
        Ok(GetPromptResult::new(vec![message]).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let argument = request.argument;
        let values = match &request.r#ref {
            Reference::Resource(template) if template.uri == PROJECT_TEMPLATE => {
                self.blocking(move |memories, _| projects(memories, &argument.value))
                    .await?
            }
            Reference::Resource(template) if template.uri == MEMORY_TEMPLATE => {
                self.blocking(move |memories, scope| ids(memories, scope, &argument.value))
                    .await?
            }
            Reference::Prompt(prompt) if prompt.name == prompts::RECALL => {
                let is_project = argument.name == prompts::PROJECT;
                let projects = move |memories: &Memories, _: &Scope| match is_project {
                    true => projects(memories, &argument.value),
                    false => Ok(Vec::new()),
                };
                self.blocking(projects).await?
            }
            _ => {
                let message = format!(
                    "ref: arguments of the resource templates {MEMORY_TEMPLATE} and {PROJECT_TEMPLATE} are completed, \
                     and those of the prompt {}",
                    prompts::RECALL
                );
                return Err(ErrorData::invalid_params(message, None));
            }
        };
        let mut values = values.map_err(|error| refused(&error))?;
        let total = values.len();
        values.truncate(CompletionInfo::MAX_VALUES);
        let more = total > values.len();
        CompletionInfo::with_pagination(values, Some(total as u32), more)
            .map(CompleteResult::new)
            .map_err(|error| ErrorData::internal_error(error, None))
    }

    /// What `rmcp` could not read as the method it names has wrong parameters; the others do not exist.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let params = request.params.unwrap_or_default();
        let has_handshake = context
            .protocol_version()
            .is_none_or(|version| version < ProtocolVersion::V_2026_07_28);
        let wrong = match &*request.method {
            "initialize" if has_handshake => why::<InitializeRequestParams>(params),
            "tools/call" => why::<CallToolRequestParams>(params),
            "prompts/get" => why::<GetPromptRequestParams>(params),
            "resources/read" => why::<ReadResourceRequestParams>(params),
            "completion/complete" => why::<CompleteRequestParams>(params),
            "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
                why::<PaginatedRequestParams>(params)
            }
            _ => None,
        };
        Err(match wrong {
            Some(reason) => ErrorData::invalid_params(format!("params: {reason}"), None),
            None => ErrorData::new(
                ErrorCode::METHOD_NOT_FOUND,
                format!("there is no method {}", request.method),
                None,
            ),
        })
    }
}

/// Why parameters are not what they should be.
fn why<T: DeserializeOwned>(params: Value) -> Option<String> {
    let params = match params {
        Value::Null => Value::Object(Default::default()),
        params => params,
    };
    let read: Result<T, _> = hearth_protocol::parse::body(params.to_string().as_bytes());
    read.err().map(|error| error.message)
}

/// The text of a resource.
fn read(memories: &Memories, uri: &str) -> Result<String, ErrorData> {
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    if let Some(id) = uri.strip_prefix(MEMORY) {
        let memory = memories.get(&decoded(id), Timestamp::now());
        return memory
            .map(|memory| text::whole(&memory))
            .map_err(|error| refused(&error));
    }
    if let Some(project) = uri.strip_prefix(PROJECT) {
        let search = Search {
            project: Some(decoded(project)),
            limit: Some(MOST_FOUND),
            ..Search::default()
        };
        let listed = memories
            .list(&search, None)
            .map_err(|error| refused(&error))?;
        return Ok(text::listed(&listed));
    }
    Err(no_resource(uri))
}

/// Projects that begin like this, most memories first.
fn projects(memories: &Memories, begun: &str) -> Result<Vec<String>, Error> {
    let begun = begun.to_lowercase();
    let stats = memories.stats(Timestamp::now())?;
    let names = stats
        .projects
        .into_iter()
        .filter_map(|(project, _)| project);
    let names = names.filter(|project| project.to_lowercase().starts_with(&begun));
    Ok(names.collect())
}

/// Ids of the newest memories that begin like this.
fn ids(memories: &Memories, scope: &Scope, begun: &str) -> Result<Vec<String>, Error> {
    let search = Search {
        project: scope.project(None),
        limit: Some(MOST_FOUND),
        ..Search::default()
    };
    let listed = memories.list(&search, None)?;
    let ids = listed.memories.into_iter().map(|memory| memory.id);
    Ok(ids.filter(|id| id.starts_with(begun)).collect())
}
