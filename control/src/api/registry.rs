//! All messages with their numbers, and the functions that answer requests.

use super::schema::{MessageDef, Module, Role};
use super::server::Shared;
use super::{ApiError, AutoReply, Call, Dump, Malformed, Message, Reader, Wire, Writer};
use crate::access::Rights;
use crate::acl::{ROUNDS, Ready, Rules};
use crate::cli::Executor;
use crate::dataplane::Dataplane;
use crate::interface::InterfaceKind;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use wharf_engine::SwIfIndex;

/// Bytes before a message: 8 unused, its length, 4 unused.
pub const FRAME_HEADER: usize = 16;
/// Number of `sockclnt_create`, which clients send before they know any other: with it, that of the first message.
const FIRST_ID: u16 = 1;

/// A client, as the functions see it.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The number by which it is known.
    pub index: u32,
    /// Its name, as it says.
    pub name: String,
    /// What it may do.
    pub rights: Rights,
    /// The process that it says events are for; `None` while it wants none about interfaces.
    pub interface_events: Option<u32>,
    /// It has said farewell.
    pub leaving: bool,
}

/// What a function that answers a request may use.
#[derive(Debug)]
pub struct Cx<'a> {
    /// The state of the control plane.
    pub dp: &'a mut Dataplane,
    /// Who asks.
    pub client: &'a mut Client,
    /// All messages.
    pub registry: &'a Registry,
    pub(super) shared: &'a mut Shared,
    pub(super) out: &'a mut Vec<u8>,
}

impl Cx<'_> {
    /// Answers with a message that has no header of the framework's.
    pub fn send<M: Message>(&mut self, message: &M) {
        if let Some(id) = self.registry.id(M::DEF) {
            push_frame(self.out, id, |out| message.put(out));
        }
    }

    /// What runs commands.
    pub(super) fn executor(&self) -> Arc<dyn Executor> {
        Arc::clone(&self.shared.executor)
    }

    /// Checks that there is such an interface, of this kind.
    pub fn interface_of(&self, index: u32, kind: InterfaceKind) -> Result<SwIfIndex, ApiError> {
        let index = self.interface(index)?;
        let found = self.dp.interfaces.get(&index).is_some_and(|interface| interface.kind == kind);
        if found { Ok(index) } else { Err(ApiError::INVALID_SW_IF_INDEX) }
    }

    /// Checks that there is such an interface.
    pub fn interface(&self, index: u32) -> Result<SwIfIndex, ApiError> {
        let index = SwIfIndex(index);
        match self.dp.interfaces.contains_key(&index) {
            true => Ok(index),
            false => Err(ApiError::INVALID_SW_IF_INDEX),
        }
    }
}

/// Appends a frame: its header, the message's number, and what `put` writes.
pub(super) fn push_frame(to: &mut Vec<u8>, id: u16, put: impl FnOnce(&mut Writer)) {
    let mut out = Writer::default();
    id.put(&mut out);
    put(&mut out);
    let bytes = out.into_bytes();
    to.extend_from_slice(&[0; 8]);
    to.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    to.extend_from_slice(&[0; 4]);
    to.extend_from_slice(&bytes);
}

/// What a piece of a request has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: the request is answered.
    Nothing,
    /// More pieces.
    More,
    /// More, once the server's waker is woken.
    Later,
}

/// The rest of what is too large to be done at once; called until it says that it is done.
pub(super) type Rest = Box<dyn FnMut(&mut Cx<'_>) -> Left + Send>;

/// What a request leaves behind when its function returns.
pub(super) enum After {
    /// Nothing: it is answered.
    Done,
    /// More entries to come.
    Rest(Rest),
    /// Work that must not be done on the main thread; it gives the frames of the answer.
    Job(Box<dyn FnOnce() -> Vec<u8> + Send>),
}

type Handle = Box<dyn Fn(&mut Cx<'_>, &mut Reader<'_>) -> Result<After, Malformed> + Send + Sync>;

/// The entries that a dump has, from a place on.
#[derive(Debug)]
pub struct Page<D, P> {
    /// Some entries.
    pub entries: Vec<D>,
    /// Where to go on; `None` at the end.
    pub next: Option<P>,
}

/// Makes a page of a dump, from the start if no place is given.
pub type PageFn<M, P> = fn(&mut Cx<'_>, &M, Option<P>) -> Page<<M as Dump>::Details, P>;

/// A module, and what adds the functions that answer its requests.
pub type Served = (&'static Module, fn(&mut Handlers));

/// The functions that answer requests, as the modules give them.
#[derive(Debug)]
pub struct Handlers {
    registry: Registry,
}

impl Handlers {
    fn id(&self, def: &'static MessageDef) -> u16 {
        self.registry.id(def).unwrap_or_default()
    }

    fn add(
        &mut self,
        def: &'static MessageDef,
        handle: impl Fn(&mut Cx<'_>, &mut Reader<'_>) -> Result<After, Malformed> + Send + Sync + 'static,
    ) {
        let id = usize::from(self.id(def));
        debug_assert!(self.registry.entries.get(id).is_some(), "{} is in no module", def.name);
        if let Some(entry) = self.registry.entries.get_mut(id) {
            debug_assert!(entry.handle.is_none(), "{} is answered twice", def.name);
            entry.handle = Some(Box::new(handle));
        }
    }

    /// Answers a request whose reply is a retval.
    pub fn auto<M: AutoReply + 'static>(&mut self, f: fn(&mut Cx<'_>, M) -> Result<(), ApiError>) {
        let reply = self.id(M::REPLY);
        self.add(M::DEF, move |cx, from| {
            let (context, message) = request::<M>(from)?;
            let retval = retval(f(cx, message)).map_or_else(|e| e, |()| 0);
            push_frame(cx.out, reply, |out| (context.put(out), retval.put(out)).1);
            Ok(After::Done)
        });
    }

    /// As [`Handlers::auto`], for what takes long: the function does a piece at a time, and says when all is done.
    pub fn steps<M: AutoReply + Send + 'static>(&mut self, f: fn(&mut Cx<'_>, &M) -> Result<bool, ApiError>) {
        let reply = self.id(M::REPLY);
        self.add(M::DEF, move |_, from| {
            let (context, message) = request::<M>(from)?;
            Ok(After::Rest(Box::new(move |cx| {
                let done = f(cx, &message);
                // Not all at the end of the turn: its time is looked at after each piece.
                cx.dp.record_changes();
                if done == Ok(false) {
                    return Left::More;
                }
                let retval = retval(done).map_or_else(|e| e, |_| 0);
                push_frame(cx.out, reply, |out| (context.put(out), retval.put(out)).1);
                Left::Nothing
            })))
        });
    }

    /// As [`Handlers::call`], for what may take long: the function does a piece at a time, and gives the reply when all is done.
    #[allow(clippy::type_complexity)] // The type says it best.
    pub fn call_steps<M: Call + Send + 'static>(
        &mut self,
        f: fn(&mut Cx<'_>, &M) -> Result<Option<M::Reply>, ApiError>,
    ) {
        let reply = self.id(M::Reply::DEF);
        self.add(M::DEF, move |_, from| {
            let (context, message) = request::<M>(from)?;
            Ok(After::Rest(Box::new(move |cx| {
                if let Some(result) = f(cx, &message).transpose() {
                    push_reply(cx.out, reply, context, result);
                    return Left::Nothing;
                }
                Left::More
            })))
        });
    }

    /// As [`Handlers::auto`], for what compiles access lists: those that `work` names are compiled first, on a thread of their own.
    pub fn auto_compiled<M: AutoReply + Send + 'static>(
        &mut self,
        work: fn(&Cx<'_>, &M) -> Vec<Rules>,
        f: fn(&mut Cx<'_>, &M) -> Result<(), ApiError>,
    ) {
        let reply = self.id(M::REPLY);
        self.add(M::DEF, move |_, from| {
            let (context, message) = request::<M>(from)?;
            Ok(After::Rest(compiled(message, work, move |cx, message| {
                let retval = retval(f(cx, message)).map_or_else(|e| e, |()| 0);
                push_frame(cx.out, reply, |out| (context.put(out), retval.put(out)).1);
            })))
        });
    }

    /// As [`Handlers::raw`], for what compiles access lists.
    pub fn raw_compiled<M: Message + Send + 'static>(
        &mut self,
        work: fn(&Cx<'_>, &M) -> Vec<Rules>,
        f: fn(&mut Cx<'_>, &M),
    ) {
        self.add(M::DEF, move |_, from| Ok(After::Rest(compiled(M::take(from)?, work, f))));
    }

    /// Answers a request with a reply of its own; when it fails, the reply is empty.
    pub fn call<M: Call + 'static>(&mut self, f: fn(&mut Cx<'_>, M) -> Result<M::Reply, ApiError>) {
        let reply = self.id(M::Reply::DEF);
        self.add(M::DEF, move |cx, from| {
            let (context, message) = request::<M>(from)?;
            let result = f(cx, message);
            push_reply(cx.out, reply, context, result);
            Ok(After::Done)
        });
    }

    /// Answers a request by work that may take long, done on a thread of its own. The client's next request waits for it. The reply has
    /// something to say also when it failed.
    #[allow(clippy::type_complexity)] // The type says it best.
    pub fn job<M: Call + 'static>(
        &mut self,
        f: fn(&mut Cx<'_>, M) -> Box<dyn FnOnce() -> (Result<(), ApiError>, M::Reply) + Send>,
    ) {
        let reply = self.id(M::Reply::DEF);
        self.add(M::DEF, move |cx, from| {
            let (context, message) = request::<M>(from)?;
            let work = f(cx, message);
            Ok(After::Job(Box::new(move || {
                let mut out = Vec::new();
                let (result, message) = work();
                push_frame(&mut out, reply, |out| {
                    context.put(out);
                    retval(result).map_or_else(|e| e, |()| 0).put(out);
                    message.put(out);
                });
                out
            })))
        });
    }

    /// Answers a dump.
    pub fn dump<M: Dump + 'static>(&mut self, f: fn(&mut Cx<'_>, M) -> Vec<M::Details>) {
        let details = self.id(M::Details::DEF);
        self.add(M::DEF, move |cx, from| {
            let (context, message) = request::<M>(from)?;
            let entries = f(cx, message);
            push_details(cx.out, details, context, &entries);
            Ok(After::Done)
        });
    }

    /// Answers a dump that can be large, page by page: the next one is asked for when the client has taken the last.
    pub fn pages<M: Dump + Send + 'static, P: Send + 'static>(&mut self, f: PageFn<M, P>) {
        let details = self.id(M::Details::DEF);
        self.add(M::DEF, move |_, from| {
            let (context, message) = request::<M>(from)?;
            let mut place = None;
            Ok(After::Rest(Box::new(move |cx| {
                let page = f(cx, &message, place.take());
                push_details(cx.out, details, context, &page.entries);
                place = page.next;
                if place.is_none() { Left::Nothing } else { Left::More }
            })))
        });
    }

    /// Answers a stream: entries, and then a reply.
    #[allow(clippy::type_complexity)] // The type says it best.
    pub fn get<M: Call + Dump + 'static>(
        &mut self,
        f: fn(&mut Cx<'_>, M) -> Result<(Vec<M::Details>, M::Reply), ApiError>,
    ) {
        let (details, reply) = (self.id(M::Details::DEF), self.id(M::Reply::DEF));
        self.add(M::DEF, move |cx, from| {
            let (context, message) = request::<M>(from)?;
            let result = f(cx, message).map(|(entries, reply)| {
                push_details(cx.out, details, context, &entries);
                reply
            });
            push_reply(cx.out, reply, context, result);
            Ok(After::Done)
        });
    }

    /// Hands over a message that has no header of the framework's; the function sends what it wants.
    pub fn raw<M: Message + 'static>(&mut self, f: fn(&mut Cx<'_>, M)) {
        self.add(M::DEF, move |cx, from| {
            let message = M::take(from)?;
            f(cx, message);
            Ok(After::Done)
        });
    }
}

/// Answers a request once the access lists that it compiles are ready.
fn compiled<M: Send + 'static>(
    message: M,
    work: fn(&Cx<'_>, &M) -> Vec<Rules>,
    answer: impl Fn(&mut Cx<'_>, &M) + Send + 'static,
) -> Rest {
    let (mut ready, mut round) = (Ready::default(), 0);
    let mut compiling: Option<Receiver<Ready>> = None;
    Box::new(move |cx| {
        if let Some(others) = &compiling {
            match others.try_recv() {
                Ok(done) => ready = done,
                Err(TryRecvError::Empty) => return Left::Later,
                Err(TryRecvError::Disconnected) => round = ROUNDS,
            }
            compiling = None;
        }
        let missing = ready.missing(work(cx, &message));
        if !missing.is_empty() && round < ROUNDS {
            round += 1;
            let (send, receive) = sync_channel(1);
            let (mut ready, waker) = (std::mem::take(&mut ready), cx.shared.waker.clone());
            let thread = std::thread::Builder::new().name("api-acl".into()).spawn(move || {
                ready.compile(missing);
                let _ = send.send(ready);
                waker.wake();
            });
            if thread.is_ok() {
                compiling = Some(receive);
                return Left::Later;
            }
        }
        cx.dp.acls.ready = std::mem::take(&mut ready);
        answer(cx, &message);
        cx.dp.acls.ready = Ready::default();
        Left::Nothing
    })
}

/// A request that changes something, while somebody else has the dataplane's state to itself.
fn deferred(registry: &Registry, bytes: &[u8]) -> Result<After, Malformed> {
    registry.decode(bytes)?;
    let (bytes, mut rest) = (bytes.to_vec(), None::<Rest>);
    Ok(After::Rest(Box::new(move |cx| {
        if cx.dp.is_reserved() {
            cx.dp.wake_when_released(&cx.shared.waker);
            return Left::Later;
        }
        if let Some(rest) = &mut rest {
            return rest(cx);
        }
        match cx.registry.handle(cx, &bytes) {
            Ok(After::Rest(more)) => {
                rest = Some(more);
                Left::More
            }
            // It has been decoded, and only what changes nothing is a job.
            Ok(After::Done | After::Job(_)) | Err(Malformed) => Left::Nothing,
        }
    })))
}

/// The same rest, which waits while somebody else has the dataplane's state to itself.
fn waiting(mut rest: Rest) -> Rest {
    Box::new(move |cx| {
        if cx.dp.is_reserved() {
            cx.dp.wake_when_released(&cx.shared.waker);
            return Left::Later;
        }
        rest(cx)
    })
}

fn request<M: Message>(from: &mut Reader<'_>) -> Result<(u32, M), Malformed> {
    let (_client_index, context) = (u32::take(from)?, u32::take(from)?);
    Ok((context, M::take(from)?))
}

fn retval<T>(result: Result<T, ApiError>) -> Result<T, i32> {
    result.map_err(|error| error.0)
}

fn push_reply<R: Message + Default>(to: &mut Vec<u8>, id: u16, context: u32, result: Result<R, ApiError>) {
    let (retval, reply) = match retval(result) {
        Ok(reply) => (0, reply),
        Err(error) => (error, R::default()),
    };
    push_frame(to, id, |out| {
        context.put(out);
        retval.put(out);
        reply.put(out);
    });
}

fn push_details<D: Message>(to: &mut Vec<u8>, id: u16, context: u32, entries: &[D]) {
    let indexed = D::DEF.fields.first().is_some_and(|field| field.name == "client_index");
    for entry in entries {
        push_frame(to, id, |out| {
            if indexed {
                0u32.put(out);
            }
            context.put(out);
            entry.put(out);
        });
    }
}

struct Entry {
    def: &'static MessageDef,
    handle: Option<Handle>,
}

/// All messages. A message's number is its place in the list, which starts at 1: so `sockclnt_create`, the fifteenth of the
/// first module, has the number 15 that clients expect.
pub struct Registry {
    modules: Vec<(&'static Module, u16)>,
    /// Index 0 is no message.
    entries: Vec<Entry>,
    ids: HashMap<String, u16>,
    json: OnceLock<String>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("messages", &self.entries.len()).finish_non_exhaustive()
    }
}

const NOTHING: &MessageDef = &MessageDef {
    name: "",
    doc: "",
    fields: &[],
    crc: 0,
    role: Role::Answer,
    reads: true,
    framework: 0,
    check: |_| Ok(()),
};

impl Registry {
    /// Numbers the messages of these modules, and lets each add its functions.
    pub fn new(modules: &[Served]) -> Registry {
        let mut registry = Registry {
            modules: Vec::new(),
            entries: vec![Entry { def: NOTHING, handle: None }],
            ids: HashMap::new(),
            json: OnceLock::new(),
        };
        for (module, _) in modules {
            registry.modules.push((module, registry.entries.len() as u16));
            for def in module.messages {
                let id = registry.entries.len() as u16;
                debug_assert!(id >= FIRST_ID);
                let taken = registry.ids.insert(def.key(), id);
                debug_assert!(taken.is_none(), "{} is declared twice", def.key());
                registry.entries.push(Entry { def, handle: None });
            }
        }
        let mut handlers = Handlers { registry };
        modules.iter().for_each(|(_, functions)| functions(&mut handlers));
        handlers.registry
    }

    /// The number of a message.
    pub fn id(&self, def: &MessageDef) -> Option<u16> {
        self.ids.get(&def.key()).copied()
    }

    /// The message with a number.
    pub fn def(&self, id: u16) -> Option<&'static MessageDef> {
        self.entries.get(usize::from(id)).filter(|_| id >= FIRST_ID).map(|entry| entry.def)
    }

    /// All messages with their numbers.
    pub fn messages(&self) -> impl Iterator<Item = (u16, &'static MessageDef)> + '_ {
        self.entries.iter().enumerate().skip(1).map(|(id, entry)| (id as u16, entry.def))
    }

    /// The modules with the number of their first message.
    pub fn modules(&self) -> &[(&'static Module, u16)] {
        &self.modules
    }

    /// The definitions of all modules, as clients load them.
    pub fn json(&self) -> &str {
        self.json.get_or_init(|| {
            let modules = self.modules.iter().map(|(module, _)| super::json::module(module));
            serde_json::Value::Array(modules.collect()).to_string()
        })
    }

    /// Whether a request has a function that answers it.
    pub fn is_answered(&self, def: &MessageDef) -> bool {
        let entry = self.id(def).and_then(|id| self.entries.get(usize::from(id)));
        entry.is_some_and(|entry| entry.handle.is_some())
    }

    /// Reads a message, given without its frame header, and does nothing about it.
    ///
    /// Errors: as when it comes from a client.
    pub fn decode(&self, bytes: &[u8]) -> Result<&'static MessageDef, Malformed> {
        let mut from = Reader::new(bytes);
        let def = self.def(u16::take(&mut from)?).ok_or(Malformed)?;
        let framework = def.fields.iter().take(def.framework).map(super::json::field_size).sum();
        from.raw(framework)?;
        (def.check)(&mut from)?;
        Ok(def)
    }

    /// Answers a message, given without its frame header.
    ///
    /// Errors: it is not one that clients send, or is shorter than it must be.
    pub(super) fn handle(&self, cx: &mut Cx<'_>, bytes: &[u8]) -> Result<After, Malformed> {
        let mut from = Reader::new(bytes);
        let id = u16::take(&mut from)?;
        let entry = self.entries.get(usize::from(id)).filter(|_| id >= FIRST_ID).ok_or(Malformed)?;
        let forbidden = cx.client.rights == Rights::ReadOnly && !entry.def.reads;
        if let Some(handle) = entry.handle.as_ref().filter(|_| !forbidden) {
            if entry.def.reads {
                return handle(cx, &mut from);
            }
            if cx.dp.is_reserved() {
                return deferred(self, bytes);
            }
            return Ok(match handle(cx, &mut from)? {
                After::Rest(rest) => After::Rest(waiting(rest)),
                after => after,
            });
        }
        let retval = if forbidden { ApiError::FEATURE_DISABLED } else { ApiError::UNIMPLEMENTED };
        let reply = match entry.def.role {
            Role::Call(reply) | Role::Get(_, reply) => reply,
            // There are none of what wharf has not.
            Role::Dump(_) | Role::Silent => return Ok(After::Done),
            Role::Answer => return Err(Malformed),
        };
        // Those without a context belong to shared memory.
        let [client_index, context, ..] = entry.def.fields else { return Err(Malformed) };
        if (client_index.name, context.name) != ("client_index", "context") {
            return Err(Malformed);
        }
        let mut header = from.clone();
        let (_client_index, context) = (u32::take(&mut header)?, u32::take(&mut header)?);
        (entry.def.check)(if entry.def.framework == 2 { &mut header } else { &mut from })?;
        let why = if forbidden { "and may only look" } else { "which is not there" };
        tracing::info!("API: {} asks for {}, {why}", cx.client.name, entry.def.name);
        let reply = self.messages().find(|(_, def)| def.name == reply);
        if let Some((id, def)) = reply {
            push_frame(cx.out, id, |out| {
                for field in def.fields {
                    match field.name {
                        "context" => context.put(out),
                        "retval" => retval.0.put(out),
                        _ => out.raw(&vec![0; super::json::field_size(field)]),
                    }
                }
            });
        }
        Ok(After::Done)
    }
}
