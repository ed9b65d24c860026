#!/bin/sh
# Holds the prose of this repository to short sentences: none has more than 30 words, and the mean of a file is below 16.
#
#   sentences.sh              check README.md, CONTRIBUTING.md, docs/*.md and the comments of config.toml
#   sentences.sh FILE...      check these
#   sentences.sh report ...   print words, sentences, mean and longest of each file as well
#   sentences.sh self-test    count texts whose counts are known
#
# A sentence ends at a full stop, a question mark or an exclamation mark, and where a paragraph, a list item, a heading or
# a table's cell ends. A code span is one word; code blocks, comments and link targets are none. Headings, cells and
# fragments of one or two words do not count in the mean, so they cannot hide long sentences.
set -eu
cd "$(dirname "$0")/.."

count() { # count MODE FILE...: MODE is check, report, or counts (a line for each text: the words of its sentences)
    mode=$1
    shift
    LC_ALL=C awk -v mode="$mode" -v most=30 -v mean=16 '
    function start(file) {
        name = file
        toml = file ~ /\.toml$/
        fenced = hidden = sentences = words = longest = 0
        blank = 1
        code = item = 0
        buffer = ""
    }

    function finish() {
        flush(0)
        if (name == "") return
        average = sentences ? words / sentences : 0
        if (mode == "report")
            printf "%-28s %6d words %5d sentences  mean %4.1f  longest %2d\n", name, words, sentences, average, longest
        if (mode == "check" && average >= mean) {
            printf "%s: the mean is %.1f words a sentence; it must be below %d\n", name, average, mean
            bad = 1
        }
    }

    # Adds a line to the present text.
    function add(line) {
        if (buffer == "") first = FNR
        else buffer = buffer "\n"
        buffer = buffer line
    }

    # Code spans become one word each; what a span hides can hold no sentence end and no bar. Lines stay lines.
    function without_code(text,    out, ticks, rest, end, lines) {
        out = ""
        while (match(text, /`+/)) {
            out = out substr(text, 1, RSTART - 1)
            ticks = substr(text, RSTART, RLENGTH)
            rest = substr(text, RSTART + RLENGTH)
            end = index(rest, ticks)
            if (!end) return out rest
            lines = substr(rest, 1, end - 1)
            gsub(/[^\n]/, "", lines)
            out = out "Code" lines
            text = substr(rest, end + length(ticks))
        }
        return out text
    }

    # Of links the text stays, of bare addresses one word.
    function without_targets(text) {
        gsub(/\]\([^)]*\)/, "", text)
        gsub(/<?https?:\/\/[^ \n>]*[^ \n>.,;:)]>?/, "Address", text)
        gsub(/<[^<>]*>/, "", text)
        gsub(/!?\[/, "", text)
        gsub(/\]/, "", text)
        return text
    }

    function is_end(token, next_token) {
        gsub(/["\047)*_]+$/, "", token)
        if (token !~ /[.!?:]$/ || token ~ /:$/) return 0
        if (token ~ /^["\047(]*(e\.g|i\.e|vs|cf|approx|incl|No)\.$/) return 0
        if (token ~ /(etc\.|\.\.\.)$/) return next_token == "" || next_token ~ /^["\047(]*[A-Z]/
        return 1
    }

    # Counts the sentences of the present text, and begins another. apart: not a part of the mean.
    function flush(apart,    text, lines, n, i, tokens, m, j, count, where, sentence, all, at, k) {
        text = without_targets(without_code(buffer))
        buffer = ""
        n = split(text, lines, "\n")
        k = 0
        for (i = 1; i <= n; i++) {
            m = split(lines[i], tokens, /[ \t]+/)
            for (j = 1; j <= m; j++)
                if (tokens[j] != "") {
                    all[++k] = tokens[j]
                    at[k] = first + i - 1
                }
        }
        count = 0
        sentence = ""
        for (i = 1; i <= k; i++) {
            if (!count) where = at[i]
            if (all[i] ~ /[A-Za-z0-9]/) count++
            sentence = sentence (sentence == "" ? "" : " ") all[i]
            if (i == k || is_end(all[i], all[i + 1])) {
                ended(count, where, sentence, apart)
                count = 0
                sentence = ""
            }
        }
    }

    function ended(count, where, sentence, apart) {
        if (!count) return
        if (mode == "counts") printf "%d ", count
        if (count > longest) longest = count
        if (!apart && count > 2) {
            words += count
            sentences++
        }
        if (count > most && mode == "check") {
            printf "%s:%d: %d words: %s\n", name, where, count, sentence
            bad = 1
        }
    }

    function cells(line,    parts, n, i) {
        flush(0)
        if (line ~ /^[ |:-]*$/) return
        line = without_code(line)
        gsub(/\\\|/, "/", line)
        n = split(line, parts, "|")
        for (i = 1; i <= n; i++) {
            add(parts[i])
            flush(1)
        }
    }

    function markdown(line) {
        if (line ~ /^ *```/) { flush(0); fenced = !fenced; return }
        if (fenced) return
        if (line ~ /^<!--/) { flush(0); hidden = 1 }
        if (hidden) { if (line ~ /-->/) hidden = 0; return }
        if (line ~ /^[ \t]*$/) { flush(0); blank = 1; return }
        # An indented block behind an empty line is code, and so is what follows it.
        if (line ~ /^(    |\t)/ && (blank || code)) { code = 1; blank = 0; return }
        blank = code = 0
        sub(/^ *(> ?)+/, "", line)
        if (line ~ /^#+ /) { flush(0); sub(/^#+ /, "", line); add(line); flush(1); return }
        if (line ~ /^ *\|/) { cells(line); return }
        if (sub(/^ *([-*+]|[0-9]+\.) +/, "", line)) flush(0)
        add(line)
    }

    # Comments. Values, also those that are commented out, and what is indented by five spaces are code; three spaces and
    # a word, a gap, and its explanation are an item.
    function comments(line) {
        if (line !~ /^#/) { flush(0); item = 0; return }
        if (item && line ~ /^#          /) { sub(/^# +/, "", line); add(line); return }
        if (line ~ /^#   [^ ].*[^ ]  +[^ ]/) {
            flush(0)
            item = 1
            sub(/^#   /, "", line)
            if (match(line, /   *[^ ]/)) line = substr(line, RSTART + RLENGTH - 1)
            add(line)
            return
        }
        item = 0
        sub(/^[# ]*#/, "", line)
        if (line ~ /^ *$/ || line ~ /^     / || line ~ /^ *\[/ || line ~ /^ *[A-Za-z_."-]+ *= / || line ~ /^ *\342\224\200/) {
            flush(0)
            return
        }
        add(line)
    }

    FNR == 1 { finish(); start(FILENAME) }
    { if (toml) comments($0); else markdown($0) }
    END { finish(); exit bad }
    ' "$@"
}

expect() { # expect COUNTS [SUFFIX]: the text is standard input
    scratch=$(mktemp -d)
    cat >"$scratch/text.${2:-md}"
    got=$(count counts "$scratch/text.${2:-md}")
    rm -r "$scratch"
    [ "$got" = "$1 " ] || {
        printf 'sentences: self-test: expected "%s", counted "%s"\n' "$1" "$got" >&2
        exit 1
    }
}

accepts() { # accepts yes|no TEXT
    scratch=$(mktemp -d)
    printf '%s\n' "$2" >"$scratch/text.md"
    if count check "$scratch/text.md" >/dev/null; then got=yes; else got=no; fi
    rm -r "$scratch"
    [ "$got" = "$1" ] || {
        printf 'sentences: self-test: accepted: %s, expected: %s: %s\n' "$got" "$1" "$2" >&2
        exit 1
    }
}

self_test() {
    printf 'One two three. Four five!\nSix\nseven? Eight\n' | expect '3 2 2 1'
    printf 'Redis 7.0 and v2.0 took 1.5 s, e.g. here.\nIt is `a.b. c` (or not). Next.\n' | expect '9 5 1'
    printf 'See [the one page](docs/a.md#b. c) and https://example.org/a.b. Done "now." Yes\n' | expect '6 2 1'
    printf '# A heading\n\n- one two\n  three\n- four. Five six\n\n1. seven\n' | expect '2 3 1 2 1'
    printf '| a b | `c | d` |\n| --- | :-: |\n| one two. Three | four \\| five |\n' | expect '2 1 2 1 2'
    printf 'Before:\n\n    code that counts. For nothing\n\n```sh\nnor. This\n```\n\nAfter it\n' | expect '1 2'
    printf 'Lists, maps etc. and more. Some etc. Others ... as well.\n' | expect '5 2 3'
    printf '<!-- one two. -->\n![A picture of it](a.png) is *here*. **Now.** Go\n' | expect '6 1 1'
    printf 'A `code\nspan. Over` lines. B\n' | expect '3 1'
    printf '# ── Head ──\n\n# One two\n# three. Four\nkey = "v"   # not this one\n' | expect '3 1' toml
    printf '#     a command line. Skipped\n# [table]\n# key = "v. w"\n# Said once\n' | expect '2' toml
    printf '#   key [x]     What it is. And\n#                 more of it\n#   other    One\n' | expect '3 4 1' toml

    # Thirty words are enough, one more is too many, and so is a mean of sixteen.
    ten='a b c d e f g h i j'
    short='One two three.'
    accepts yes "$ten $ten $ten. $short $short"
    accepts no "$ten $ten $ten k. $short $short"
    accepts yes "$ten a b c d e."
    accepts no "$ten a b c d e f."
    accepts no "$ten $ten. $ten a b c. Two words. Two more."
    accepts yes "$short

| $ten $ten |"
}

case ${1:-check} in
self-test) self_test ;;
report)
    shift
    [ $# -gt 0 ] || set -- README.md CONTRIBUTING.md docs/*.md config.toml
    count report "$@"
    ;;
*)
    [ $# -gt 0 ] || set -- README.md CONTRIBUTING.md docs/*.md config.toml
    count check "$@"
    ;;
esac
