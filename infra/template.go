package infra

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

//go:embed template.yaml
var template []byte

// Template is the CloudFormation template, as `hayrick infra print` shows it.
func Template() []byte { return append([]byte(nil), template...) }

// ownDocument is the template, read once.
var ownDocument = sync.OnceValues(func() (*document, error) { return parseTemplate(template) })

// document is a template before anything is known of its parameters. Values are what
// JSON has, with int64 for integers; an intrinsic in its short form, !Sub x, is its long
// one, {"Fn::Sub": x}.
type document struct {
	parameters, conditions, mappings map[string]any
	resources, outputs               map[string]any
	order                            []string // of resources, as they stand in the file
}

// parseTemplate reads YAML. A section, tag or kind of value that it does not know is an
// error.
func parseTemplate(text []byte) (*document, error) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, fmt.Errorf("parse the template: %w", err)
	}
	if len(file.Docs) != 1 {
		return nil, fmt.Errorf("parse the template: %d documents, not one", len(file.Docs))
	}
	top, err := valueOf(file.Docs[0].Body)
	if err != nil {
		return nil, fmt.Errorf("parse the template: %w", err)
	}
	sections, ok := top.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("parse the template: it is no mapping")
	}
	d := &document{}
	for name, v := range sections {
		into := map[string]*map[string]any{
			"Parameters": &d.parameters, "Conditions": &d.conditions, "Mappings": &d.mappings, "Resources": &d.resources, "Outputs": &d.outputs,
		}[name]
		section, isMap := v.(map[string]any)
		switch {
		case into != nil && isMap:
			*into = section
		case name != "AWSTemplateFormatVersion" && name != "Description":
			return nil, fmt.Errorf("parse the template: section %s is not understood", name)
		}
	}
	for _, v := range pairs(file.Docs[0].Body) {
		if v.Key.String() == "Resources" {
			for _, r := range pairs(v.Value) {
				d.order = append(d.order, r.Key.String())
			}
		}
	}
	if len(d.order) != len(d.resources) || len(d.order) == 0 {
		return nil, fmt.Errorf("parse the template: %d resources, %d names", len(d.resources), len(d.order))
	}
	return d, nil
}

// pairs are the entries of a mapping in their order; the parser has a type of its own
// for a mapping with one.
func pairs(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

func valueOf(n ast.Node) (any, error) {
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		out := map[string]any{}
		for _, p := range pairs(n) {
			key, err := valueOf(p.Key)
			if err != nil {
				return nil, err
			}
			name, ok := key.(string)
			if !ok {
				return nil, at(n, "the key %v is no text: put it in quotes", key)
			}
			if out[name], err = valueOf(p.Value); err != nil {
				return nil, err
			}
		}
		return out, nil
	case *ast.SequenceNode:
		out := make([]any, len(n.Values))
		for i, v := range n.Values {
			var err error
			if out[i], err = valueOf(v); err != nil {
				return nil, err
			}
		}
		return out, nil
	case *ast.TagNode:
		v, err := valueOf(n.Value)
		if err != nil {
			return nil, err
		}
		return intrinsic(n, v)
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.IntegerNode:
		switch v := n.Value.(type) {
		case int64:
			return v, nil
		case uint64:
			return int64(v), nil
		}
	case *ast.FloatNode:
		return n.Value, nil
	case *ast.BoolNode:
		return n.Value, nil
	}
	return nil, at(n, "%T is not understood", n)
}

// intrinsic is the long form of a tag.
func intrinsic(n *ast.TagNode, v any) (any, error) {
	tag := strings.TrimPrefix(n.Start.Value, "!")
	switch tag {
	case "Ref":
		return map[string]any{"Ref": v}, nil
	case "GetAtt":
		text, ok := v.(string)
		resource, attribute, dot := strings.Cut(text, ".")
		if !ok || !dot {
			return nil, at(n, "!GetAtt takes Resource.Attribute")
		}
		return map[string]any{"Fn::GetAtt": []any{resource, attribute}}, nil
	case "Sub", "Join", "Split", "If", "Equals", "Not", "FindInMap":
		return map[string]any{"Fn::" + tag: v}, nil
	}
	return nil, at(n, "the tag !%s is not understood", tag)
}

func at(n ast.Node, format string, args ...any) error {
	line := 0
	if n != nil && n.GetToken() != nil && n.GetToken().Position != nil {
		line = n.GetToken().Position.Line
	}
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}
