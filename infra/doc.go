// Package infra is a store on AWS as code: one CloudFormation template, what it comes
// to, and what its policies allow.
//
//	template.yaml --Resolve(Params)--> Stack: Table(), Queues(), Bucket(), Policy(role)
//	                                     |
//	policies + Request --Evaluate--> allowed or not, and because of which statement
//	policy + recorded requests --Unused--> what it allows and nobody needed
//
// The template is plain CloudFormation, so that AWS, an emulator and a linter take the
// same file; the reasons are in its comments and in docs/decisions/infra.md. Resolve
// does what CloudFormation does with it before it makes anything: parameters are
// checked, conditions decided, Ref, Sub, GetAtt, Join, Split, If, FindInMap replaced.
// What it does not know is an error, never left out: so a test that makes its table,
// queues and bucket from a Stack makes those of the template, and a rule that holds for
// a Stack holds for what runs.
//
// Evaluate is IAM's rule for requests within one account: a Deny that matches in any
// policy wins, then an Allow in any, and else the answer is no. It knows the condition
// operators listed in iam.go; a policy with another one, a policy variable or a
// principal other than everybody is refused whole, whatever is asked of it.
//
//	facts --DecideUp, DecideDown--> the next step;  Deployer: read the facts, decide, do it, again
//
// Nothing here talks to AWS: what a Deployer works on are the ports in ports.go.
package infra
