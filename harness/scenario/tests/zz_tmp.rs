use std::time::Instant;
const W: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "=",
    ";",
    "\\",
    "\"",
    "\"\"\"",
    "#",
    "#\"",
    "\"#",
    "//",
    "/*",
    "*/",
    "/-",
    ",",
    ":",
    "'",
    "\n",
    "\r",
    "\t",
    "#true",
    "50",
    "0x",
    "a",
    "b",
    " ",
    " ",
    " ",
    "\n",
    "-",
    "+",
    ".",
    "\u{85}",
    "\"a\"",
    "{}",
    "a=1",
    "\"\"\"\n",
    "#\"\"\"\n",
    "\n\"\"\"",
    "\n\"\"\"#",
    "é",
    "[",
    "1.5e3",
    "\\u{41}",
    "\u{200b}",
];
fn main_noise(seed: u64, n: usize) -> String {
    let mut s = seed;
    let mut out = String::new();
    for _ in 0..n {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        out.push_str(W[(s % W.len() as u64) as usize]);
    }
    out
}
#[test]
fn fallback() {
    let mut hits = std::collections::BTreeMap::<String, (usize, String)>::new();
    let mut ok = 0;
    let mut fmtchanged = 0;
    for i in 0..3_000_000u64 {
        let src = main_noise(
            i.wrapping_mul(0x9E3779B97F4A7C15) | 1,
            1 + (i % 12) as usize,
        );
        match cutpoint_scenario::format("x", &src) {
            Err(d) => {
                for x in &d {
                    if x.code == "kdl" {
                        let e = hits
                            .entry(x.message.clone())
                            .or_insert((0, format!("{src:?}")));
                        e.0 += 1;
                        if src.len() < e.1.len() {
                            e.1 = format!("{src:?}");
                        }
                    }
                }
            }
            Ok(f) => {
                ok += 1;
                if f == src && src.contains("  ") && !src.contains('"') && !src.contains("/") {
                    fmtchanged += 1;
                    if fmtchanged < 10 {
                        println!("unchanged {src:?}");
                    }
                }
                let again = cutpoint_scenario::format("x", &f).unwrap();
                assert_eq!(again, f, "{src:?}");
            }
        }
    }
    println!("ok {ok}");
    for (k, v) in hits {
        println!("{k}: {v:?}");
    }
}
#[test]
fn big() {
    for (name, unit) in [
        ("open", "{"),
        ("close", "}"),
        ("po", "("),
        ("pc", ")"),
        ("sd", "/-"),
        ("bc", "/*"),
        ("star", "/**"),
        ("q", "\""),
        ("bs", "\\"),
        ("semi", ";"),
        ("eq", "="),
        ("word", "a "),
        ("nodes", "a\n"),
        ("blk", "a{"),
        ("prop", "a="),
        ("props", "a=1 "),
        ("nl", "\n"),
        ("hash", "#"),
        ("hq", "#\""),
        ("sp", " "),
        ("semin", "a;"),
        ("blocks", "a{}\n"),
        ("sdn", "/-a\n"),
        ("sdb", "a /-{}\n"),
        ("sdbn", "a /-{"),
        ("scen", "scenario \"a\" { user \"b\" }\n"),
        ("str", "a \"bbbbbbbbbbbbbbb\"\n"),
        ("nums", "a 12345\n"),
        ("tq", "\"\"\"\n"),
        ("esc", "a \\\n"),
        ("bsl", "a \"\\n\\n\\n\\n\"\n"),
        ("cr", "\r"),
        ("comma", ","),
        ("quote", "'"),
        ("err", "usr \"x\"\n"),
    ] {
        let src = unit.repeat(cutpoint_scenario::SOURCE_LIMIT_BYTES / unit.len());
        let t = Instant::now();
        let r = cutpoint_scenario::parse("x", &src);
        let t1 = t.elapsed();
        if let Err(e) = &r {
            let _ = e.render(false);
        }
        let t2 = t.elapsed();
        let _ = cutpoint_scenario::format("x", &src);
        println!(
            "{name}: {t1:?} {t2:?} {:?} {}",
            t.elapsed(),
            r.map(|_| "ok".to_string()).unwrap_or_else(|e| format!(
                "{} {}",
                e.as_slice().len(),
                e.as_slice()[0].code
            ))
        );
    }
    let src = format!("a /*{}*/", "*".repeat(1_000_000));
    let t = Instant::now();
    let _ = cutpoint_scenario::format("x", &src);
    println!("stars {:?}", t.elapsed());
    let src = format!("{}{}", "a {".repeat(64), "}".repeat(64));
    let t = Instant::now();
    let r = cutpoint_scenario::format("x", &src);
    println!("depth {:?} {}", t.elapsed(), r.is_ok());
    let src = format!("{}{}", "a /-{".repeat(64), "}".repeat(64));
    let t = Instant::now();
    let r = cutpoint_scenario::format("x", &src);
    println!("sdepth {:?} {}", t.elapsed(), r.is_ok());
    let src = format!(
        "scenario \"a\" {{ model {{ reply {{ text \"{}\" }} }}\n user \"x\" }}",
        "x".repeat(1_000_000)
    );
    let t = Instant::now();
    let r = cutpoint_scenario::parse("x", &src);
    println!("longstr {:?} {}", t.elapsed(), r.is_ok());
    let src = format!(
        "scenario \"a\" {{ model {{ {} }}\n user \"x\" }}",
        (0..20000)
            .map(|i| format!("reply {{ shell c{i} \"ls\" }}\n"))
            .collect::<String>()
    );
    let t = Instant::now();
    let r = cutpoint_scenario::parse("x", &src);
    println!("calls {:?} {}", t.elapsed(), r.is_ok());
    let src = format!(
        "scenario \"a\" {{ model {{ reply {{ shell c \"ls\" }} }}\n {} }}",
        "approve d\n".repeat(90000)
    );
    let t = Instant::now();
    let r = cutpoint_scenario::parse("x", &src);
    println!("unknown calls {:?} {}", t.elapsed(), r.is_ok());
}
