package schema

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// fieldComments notes the comment of every type and field of a file under the name
// that the reflector of schemas looks it up by.
func fieldComments(pkg, path string, to map[string]string) error {
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			typ, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			doc := typ.Doc
			if doc == nil {
				doc = g.Doc
			}
			to[pkg+"."+typ.Name.Name] = said(doc)
			s, ok := typ.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range s.Fields.List {
				about := said(field.Doc)
				if about == "" {
					about = said(field.Comment)
				}
				for _, name := range field.Names {
					to[pkg+"."+typ.Name.Name+"."+name.Name] = about
				}
			}
		}
	}
	return nil
}

// said is a comment on one line.
func said(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
