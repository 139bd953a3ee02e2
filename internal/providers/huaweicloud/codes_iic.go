package huaweicloud

import "github.com/rotatord/rotatord/internal/providers"

// identityCodes are the error codes of Identity Center (reference 6.5). IIC.400 is not
// here: it comes with 400 and 404, and the status tells which is meant.
var identityCodes = codeTable{
	"IIC.404":  {kind: providers.KindNotFound},
	"IIC.1000": {kind: providers.KindDenied},
	"IIC.1001": {kind: providers.KindDenied},
	"IIC.1002": {kind: providers.KindInvalid},
	"IIC.1003": {kind: providers.KindInvalid},
	"IIC.1004": {kind: providers.KindInvalid},
	"IIC.1006": {kind: providers.KindConflict}, // concurrent change
	"IIC.1007": {kind: providers.KindConflict}, // modification failed
	"IIC.1223": {kind: providers.KindInvalid},  // Organizations not enabled, with status 400 or 403
}
