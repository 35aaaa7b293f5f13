package jobfile

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The bounds of a job file. Its scanner takes memory by the mark and its parser time
// by the square of the number of tokens: the bounds keep the worst of files below a
// tenth of a second and 64 MiB.
const (
	maxBytes  = 256 << 10
	maxMarks  = 20_000 // punctuation, wherever it stands: counted before anything is scanned
	maxTokens = 6_000  // words and marks, as YAML has them
	maxDepth  = 32
	maxOdd    = 100 // anchors, aliases, tags and keys that are no words: none of them is read
)

// bom is what some editors put before a text.
const bom = "\ufeff"

type kind int

const (
	null kind = iota
	text
	number // a decimal integer or fraction
	boolean
	list
	mapping
	probe // no value: see node.asks
)

func (k kind) String() string {
	return [...]string{"nothing", "text", "a number", "true or false", "a list", "a mapping", "a probe"}[k]
}

// node is one value of a job file.
type node struct {
	Place
	kind  kind
	value string // of a scalar, without quotes
	items []*node
	pairs []pair
	asks  bool // it is no value, and asks a reader which keys it knows (keys.go)
}

type pair struct {
	Place
	key   string
	value *node
}

// get is the value under key, or nil.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, p := range n.pairs {
		if p.key == key {
			return p.value
		}
	}
	return nil
}

// parse reads one YAML document. name is what problems call it. The node is nil when
// the text has no value or is no YAML.
func parse(name, src string) (root *node, ps Problems) {
	at := Place{File: name, Line: 1, Col: 1}
	src = strings.TrimPrefix(src, bom)
	if p, bad := unreadable(name, src); bad {
		ps = append(ps, p)
		return nil, ps
	}
	defer func() {
		if broken := recover(); broken != nil { // the parser's own faults are the file's problem
			root = nil
			ps.add(at, "this is not valid YAML (%v)", broken)
		}
	}()
	tokens := lexer.Tokenize(src)
	if p, bad := tooMuch(name, tokens); bad {
		ps = append(ps, p)
		return nil, ps
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var what string
		if bad := yaml.Error(nil); !errors.As(err, &bad) {
			what = err.Error() // of a yaml.Error that would be the whole file, in colours
		} else {
			what = bad.GetMessage()
			if t := bad.GetToken(); t != nil {
				at.Line, at.Col = t.Position.Line, t.Position.Column
			}
		}
		if line, col := deeper(src, at.Line); strings.Contains(what, notHere) && line > 0 {
			at.Line, at.Col = line, col
			ps.add(at, "indented deeper than the line above it, which has its value already; indent both alike")
			return nil, ps
		}
		ps.add(at, "%s", inWords(what))
		return nil, ps
	}
	b := builder{file: name}
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if root != nil {
			b.problems.add(b.place(doc.Body), "a second document; a job file is one: drop the line ---")
			break
		}
		if _, ok := doc.Body.(*ast.DirectiveNode); ok {
			b.problems.add(b.place(doc.Body), "directives (%%) are not read; drop the line, and --- below it")
			return nil, b.problems
		}
		root = b.build(doc.Body, 0)
	}
	if root != nil && root.kind == null && len(b.problems) > 0 {
		root = nil // it is nothing because it was refused
	}
	return root, b.problems
}

// notHere is what the parser says of a key where none can be.
const notHere = "mapping value is not allowed in this context"

// deeper is the place of the line behind the given one, if it holds a key and is indented
// deeper than that, which is a key with its value: the parser finds fault with the value.
func deeper(src string, line int) (at, col int) {
	lines := strings.Split(src, "\n")
	if line < 1 || line > len(lines) {
		return 0, 0
	}
	indent := func(s string) int { return len(s) - len(strings.TrimLeft(s, " ")) }
	above := lines[line-1]
	if key, value, ok := strings.Cut(above, ": "); !ok || strings.TrimSpace(key) == "" || strings.Contains(value, ": ") {
		return 0, 0
	}
	for i := line; i < len(lines); i++ {
		s := strings.TrimRight(lines[i], " \r")
		if text := strings.TrimLeft(s, " "); text == "" || text[0] == '#' {
			continue
		}
		if key, _, ok := strings.Cut(s+" ", ": "); ok && indent(s) > indent(above) && !strings.ContainsAny(key, "\"'{[") {
			return i + 1, indent(s) + 1
		}
		return 0, 0
	}
	return 0, 0
}

// parserWords are messages of the parser, and what a person has to do.
var parserWords = []struct{ says, means string }{
	{"found character '\t'", "a tab; YAML is indented with spaces"},
	{"non-map value is specified", "this is neither a key nor below one; write key: value, with a space behind the colon"},
	{notHere, "a second colon in one value; put the value in quotes, or the key on a line of its own, indented as those beside it"},
	{"value is not allowed in this context", "this does not belong here; look at how it is indented, and at the brackets and quotes before it"},
	{"could not find flow mapping end token", "this { is not closed; write } behind the last of it"},
	{"sequence end token ']' not found", "this [ is not closed; write ] behind the last of it"},
	{"',' or '}' must be specified", "neither , nor } is here; put a value with braces or colons in quotes"},
	{"',' or ']' must be specified", "neither , nor ] is here; put a value with brackets or colons in quotes"},
	{"could not find end character of double-quoted text", `this " is not closed; write another one behind the text, and \\ for a backslash in it`},
	{"could not find end character of single-quoted text", "this ' is not closed; write another one behind the text, and '' for one in it"},
	{"found unknown escape character", `between " and " a backslash begins an escape; write \\ for a backslash, or put the text between ' and '`},
	{"invalid header option", "behind | and > there is a line's end; put the text below it, indented, or all of it in quotes"},
	{"found an invalid key for this map", "a key must be a word"},
	{"undefined anchor value", "& begins an anchor, and those are not read; put the value in quotes"},
	{"unexpected directive value", "% begins a directive, and those are not read; put the value in quotes"},
	{"could not find map value", "this has no value; write one behind the colon"},
}

// inWords is a message of the parser, in one line, and in words where it is hard to
// make something of it.
func inWords(what string) string {
	what, _, _ = strings.Cut(what, "\n")
	for _, w := range parserWords {
		if strings.Contains(what, w.says) {
			return w.means
		}
	}
	if strings.Contains(what, "is a reserved character") {
		return what + "; put the value in quotes"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, what)
}

// unreadable says what keeps a text from being scanned at all.
func unreadable(name, src string) (Problem, bool) {
	whole := Place{File: name}
	switch {
	case len(src) > maxBytes:
		return Problem{Place: whole, What: fmt.Sprintf("more than %d KiB; a job file is a page or two: put items into the input file", maxBytes>>10)}, true
	case strings.HasPrefix(src, "\xff\xfe"), strings.HasPrefix(src, "\xfe\xff"):
		return Problem{Place: whole, What: "this is UTF-16 or UTF-32; save it as UTF-8"}, true
	}
	if i := strings.Index("\n"+src, "\n<<<<<<< "); i >= 0 {
		return Problem{Place: Place{File: name, Line: 1 + strings.Count(src[:i], "\n"), Col: 1}, What: "the mark of a merge conflict; settle it, and keep one of the two sides"}, true
	}
	line, col, marks := 1, 1, 0
	for i, r := range src {
		switch {
		case r == 0:
			return Problem{Place: Place{File: name, Line: line, Col: col}, What: "a NUL byte; this is no text file, or it is UTF-16: save it as UTF-8"}, true
		case r == utf8.RuneError && !strings.HasPrefix(src[i:], "\ufffd"):
			return Problem{Place: Place{File: name, Line: line, Col: col}, What: fmt.Sprintf("byte 0x%02x is no UTF-8; save the file as UTF-8", src[i])}, true
		case r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f:
			return Problem{Place: Place{File: name, Line: line, Col: col}, What: fmt.Sprintf("a control character, %U; take it out", r)}, true
		case r == '\n':
			line, col = line+1, 0
		case strings.ContainsRune("[]{},:#&*!?|>'\"%@`-", r):
			if marks++; marks > maxMarks {
				return Problem{Place: whole, What: fmt.Sprintf("more than %d marks of punctuation; put items into the input file, and text into a file of its own", maxMarks)}, true
			}
		}
		col++
	}
	return Problem{}, false
}

var tooDeep = fmt.Sprintf("deeper than %d levels; put such data into the input file", maxDepth)

// tooMuch says which bound the tokens of a file pass, before they are parsed.
func tooMuch(name string, tokens token.Tokens) (Problem, bool) {
	if len(tokens) > maxTokens {
		return Problem{Place: Place{File: name}, What: fmt.Sprintf("%d words and marks; a job file has at most %d: put items into the input file", len(tokens), maxTokens)}, true
	}
	flow, inLine, odd := 0, 0, 0
	for i, t := range tokens {
		at := Place{File: name, Line: max(1, t.Position.Line), Col: max(1, t.Position.Column)}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.AnchorType, token.AliasType, token.TagType, token.MappingKeyType:
			if odd++; odd > maxOdd {
				return Problem{Place: at, What: fmt.Sprintf("the %dth anchor (&), alias (*), tag (!) or key mark (?); none of them is read", odd)}, true
			}
		}
		if t.Type == token.SequenceEntryType && i > 0 && tokens[i-1].Type == token.SequenceEntryType && tokens[i-1].Position.Line == t.Position.Line {
			inLine++
		} else {
			inLine = 0
		}
		if flow > maxDepth || inLine >= maxDepth {
			return Problem{Place: at, What: tooDeep}, true
		}
	}
	return Problem{}, false
}

// builder makes nodes of the parser's tree.
type builder struct {
	file     string
	problems Problems
}

func (b *builder) place(n ast.Node) Place {
	p := Place{File: b.file, Line: 1, Col: 1}
	if n == nil {
		return p
	}
	t := n.GetToken()
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		t = m.Values[0].Key.GetToken()
	}
	if t != nil && t.Position != nil {
		p.Line, p.Col = max(1, t.Position.Line), max(1, t.Position.Column)
	}
	return p
}

func (b *builder) build(n ast.Node, depth int) *node {
	out := &node{Place: b.place(n)}
	if depth > maxDepth {
		b.problems.add(out.Place, "%s", tooDeep)
		return out
	}
	switch n := n.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
	case *ast.StringNode:
		out.kind, out.value = text, n.Value
	case *ast.LiteralNode:
		out.kind, out.value = text, n.Value.Value
	case *ast.IntegerNode:
		out.kind, out.value = number, n.Token.Value
	case *ast.FloatNode:
		out.kind, out.value = number, n.Token.Value
	case *ast.BoolNode:
		out.kind, out.value = boolean, fmt.Sprint(n.Value)
	case *ast.InfinityNode:
		out.kind, out.value = text, n.Token.Value
	case *ast.NanNode:
		out.kind, out.value = text, n.Token.Value
	case *ast.SequenceNode:
		out.kind = list
		for _, v := range n.Values {
			out.items = append(out.items, b.build(v, depth+1))
		}
	case *ast.MappingNode:
		out.kind = mapping
		seen := make(map[string]int, len(n.Values))
		for _, v := range n.Values {
			b.pair(out, v, depth, seen)
		}
	case *ast.MappingValueNode:
		out.kind = mapping
		b.pair(out, n, depth, map[string]int{})
	case *ast.AnchorNode, *ast.AliasNode:
		b.problems.add(out.Place, "anchors (&) and aliases (*) are not read; write the value out, or quote it")
	case *ast.TagNode:
		b.problems.add(out.Place, "tags (!) are not read; leave it out, or quote the value")
	default:
		b.problems.add(out.Place, "%s is not read here", n.Type())
	}
	return out
}

// pair adds one entry of a mapping; seen has the lines of the keys before it.
func (b *builder) pair(m *node, v *ast.MappingValueNode, depth int, seen map[string]int) {
	p := pair{Place: b.place(v.Key)}
	switch k := v.Key.(type) {
	case *ast.StringNode:
		p.key = k.Value
	case *ast.IntegerNode:
		p.key = k.Token.Value
	case *ast.BoolNode:
		p.key = k.Token.Value
	case *ast.MergeKeyNode:
		b.problems.add(p.Place, "merges (<<) are not read; write the keys out, or use a profile")
		return
	default:
		b.problems.add(p.Place, "a key must be a word")
		return
	}
	if at := v.Key.GetToken(); at != nil && at.Type == token.MappingKeyType {
		b.problems.add(p.Place, "a key must be a word")
		return
	}
	p.value = b.build(v.Value, depth+1)
	if p.value.kind == null && v.Value == nil {
		p.value.Place = p.Place
	}
	if earlier, twice := seen[p.key]; twice {
		b.problems.add(p.Place, "key %s is there twice, first on line %d; keep one", quoted(p.key), earlier)
		return
	}
	seen[p.key] = p.Line
	m.pairs = append(m.pairs, p)
}
