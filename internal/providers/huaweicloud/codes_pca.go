package huaweicloud

import "github.com/rotatord/rotatord/internal/providers"

// pcaCodes are the error codes of the private CA (reference 6.4): two ranges of numbers,
// of tables of different age.
var pcaCodes = codeTable{
	"PCA.00020001": {kind: providers.KindInvalid}, // parameter
	"PCA.00020101": {kind: providers.KindInvalid}, // distinguished name
	"PCA.00020102": {kind: providers.KindInvalid}, // key algorithm
	"PCA.00020103": {kind: providers.KindInvalid}, // hash
	"PCA.00020109": {kind: providers.KindInvalid}, // validity
	"PCA.00020110": {kind: providers.KindInvalid}, // domain
	"PCA.00020111": {kind: providers.KindInvalid}, // IP address
	"PCA.00020112": {kind: providers.KindInvalid}, // kind of name
	"PCA.00020201": {kind: providers.KindInvalid}, // CA id
	"PCA.00020202": {kind: providers.KindInvalid}, // CA type
	"PCA.00020203": {kind: providers.KindInvalid}, // path length
	"PCA.10010105": {kind: providers.KindInvalid}, // format of a parameter

	"PCA.00030102": {kind: providers.KindNotFound}, // with status 404
	"PCA.10010002": {kind: providers.KindNotFound}, // with status 400

	// The state is as it was asked to be.
	"PCA.10010071": {kind: providers.KindExists},
	"PCA.10010072": {kind: providers.KindExists},
}

// orderCodes are those of the order service, which answers for prepaid CAs.
var orderCodes = codeTable{
	"CBC.30000067": {kind: providers.KindNotFound}, // with status 400
}
