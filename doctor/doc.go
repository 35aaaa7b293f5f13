// Package doctor says what is wrong with a store, and what to do about it.
//
//	aws, local: examine --> AWS or Local (facts) --JudgeAWS, JudgeLocal--> lines, each with its fix --Worst--> exit code
//
// The adapters fetch the facts; nothing here asks for any. A fact that could not be had
// says why: a thing that is missing is something else than one that may not be looked
// at, and than one that a stand-in of AWS does not have. What is not shown is never ok.
package doctor
