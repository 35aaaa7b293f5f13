package jobfile

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The bounds of a job file. Its parser takes time that grows with the square of the
// number of tokens: the bound keeps that below a tenth of a second.
const (
	maxBytes  = 1 << 20
	maxTokens = 20_000
	maxDepth  = 32
)

type kind int

const (
	null kind = iota
	text
	number // a decimal integer or fraction
	boolean
	list
	mapping
	probe // no value: asks a reader which keys it knows (keys.go)
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
	src = strings.TrimPrefix(src, "\ufeff")
	if len(src) > maxBytes {
		ps.add(Place{File: name}, "%d bytes; a job file has at most 1 MiB: put items into the input file", len(src))
		return nil, ps
	}
	defer func() {
		if broken := recover(); broken != nil { // the parser's own faults are the file's problem
			root = nil
			ps.add(at, "this is not valid YAML (%v)", broken)
		}
	}()
	tokens := lexer.Tokenize(src)
	if len(tokens) > maxTokens {
		ps.add(Place{File: name}, "%d words and marks; a job file has at most %d: put items into the input file", len(tokens), maxTokens)
		return nil, ps
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		what := err.Error()
		if bad := yaml.Error(nil); errors.As(err, &bad) {
			what = bad.GetMessage()
			if t := bad.GetToken(); t != nil {
				at.Line, at.Col = t.Position.Line, t.Position.Column
			}
		}
		what, _, _ = strings.Cut(what, "\n")
		ps.add(at, "%s", what)
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
		root = b.build(doc.Body, 0)
	}
	return root, b.problems
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
		b.problems.add(out.Place, "deeper than %d levels", maxDepth)
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
		for _, v := range n.Values {
			b.pair(out, v, depth)
		}
	case *ast.MappingValueNode:
		out.kind = mapping
		b.pair(out, n, depth)
	case *ast.AnchorNode, *ast.AliasNode:
		b.problems.add(out.Place, "anchors (&) and aliases (*) are not read; write the value out, or quote it")
	case *ast.TagNode:
		b.problems.add(out.Place, "tags (!) are not read; leave it out, or quote the value")
	default:
		b.problems.add(out.Place, "%s is not read here", n.Type())
	}
	return out
}

// pair adds one entry of a mapping.
func (b *builder) pair(m *node, v *ast.MappingValueNode, depth int) {
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
	for _, earlier := range m.pairs {
		if earlier.key == p.key {
			b.problems.add(p.Place, "key %q is there twice, first on line %d; keep one", p.key, earlier.Line)
			return
		}
	}
	m.pairs = append(m.pairs, p)
}
