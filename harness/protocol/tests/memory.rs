//! What is kept of requests and events that were parsed is bounded in memory, however many there are
//! and whatever they look like. A test binary of its own, as it counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use cutpoint_protocol::event::StreamEvent;
use cutpoint_protocol::request::ResponsesRequest;

/// What may be kept, in bytes.
const LIMIT_BYTES: usize = 8 << 20;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Parses that many texts, all different, and reads of each what is computed only when it is asked for.
/// Gives the most memory that was kept in between, in bytes.
fn most_kept(count: usize, parse: impl Fn(usize)) -> usize {
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    let kept = (0..count).map(|number| {
        parse(number);
        LIVE_BYTES.load(Ordering::Relaxed).saturating_sub(before)
    });
    kept.max().unwrap_or_default()
}

fn request(body: &str) {
    let request = ResponsesRequest::parse(body.as_bytes()).expect("a request");
    for item in &*request.input {
        let _ = (item.all_text(), serde_json::to_string(item));
    }
}

fn event(data: &str) {
    let event = StreamEvent::parse(data).expect("an event");
    if let Some(item) = event.item() {
        let _ = (item.all_text(), serde_json::to_string(&item));
    }
}

/// A name, how many texts are parsed, and what parses the text of a number.
type Case<'a> = (&'a str, usize, &'a (dyn Fn(usize) + Sync));

/// One test: tests run side by side would count each other's memory.
#[test]
fn what_is_kept_of_parsed_texts_is_bounded() {
    let message = |number: usize, text: &str| {
        format!(
            r#"{{"input":[{{"type":"message","role":"user","content":[{{"type":"input_text","text":"{number} {text}"}}]}}]}}"#
        )
    };
    let empty = |number: usize, count: usize| {
        let items = r#"{"type":"x"},"#.repeat(count);
        format!(r#"{{"input":[{items}{{"type":"{number}"}}]}}"#)
    };
    let cases: [Case<'_>; 7] = [
        ("the smallest", 100_000, &|number| {
            request(&format!(r#"{{"a":{number}}}"#));
        }),
        ("small", 50_000, &|number| request(&message(number, "hi"))),
        ("of 4 KiB", 5_000, &|number| {
            request(&message(number, &"word ".repeat(800)));
        }),
        ("of 30 KiB", 1_000, &|number| {
            request(&message(number, &"word ".repeat(6_000)));
        }),
        ("of 1 MiB", 20, &|number| {
            request(&message(number, &"word ".repeat(200_000)));
        }),
        ("of many small items", 300, &|number| {
            request(&empty(number, 2_000));
        }),
        ("events with items", 50_000, &|number| {
            event(&format!(
                r#"{{"type":"response.output_item.done","item":{{"type":"message","id":"{number}","content":[]}}}}"#
            ));
        }),
    ];
    for (name, count, parse) in cases {
        // On a thread of its own, so that each case starts with nothing.
        let kept = std::thread::scope(|scope| {
            let thread = scope.spawn(|| most_kept(count, parse));
            thread.join().expect("the thread ends")
        });
        println!("{name}: {} KiB", kept >> 10);
        assert!(kept <= LIMIT_BYTES, "{name}: {} KiB are kept", kept >> 10);
    }
}
