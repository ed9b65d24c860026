//! Feeds an event's way without servers; see there. An input is events, one on each line.
#![no_main]

#[path = "../../tests/suite/hostile/pipeline.rs"]
mod pipeline;

libfuzzer_sys::fuzz_target!(|input: &[u8]| pipeline::run(input));
