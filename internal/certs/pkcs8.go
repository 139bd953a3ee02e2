package certs

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"hash"
)

// maxIterations bounds the work that a file may ask of us: about five seconds.
// OpenSSL writes 2,048, password managers up to a million.
const maxIterations = 10_000_000

var (
	errBadPassword           = errors.New("the password does not open it")
	errUnsupportedEncryption = errors.New("encryption is not supported (PBES2 with PBKDF2 and AES-CBC or DES-EDE3-CBC is)")
	errBadEncryptedKey       = errors.New("the encrypted key cannot be parsed")
	errTooManyIterations     = errors.New("PBKDF2 iteration count is not between 1 and 10,000,000")
)

// encryptedPrivateKeyInfo is EncryptedPrivateKeyInfo of RFC 5958, section 3.
type encryptedPrivateKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// pbes2Parameters is PBES2-params of RFC 8018, appendix A.4.
type pbes2Parameters struct {
	KeyDerivation pkix.AlgorithmIdentifier
	Encryption    pkix.AlgorithmIdentifier
}

// pbkdf2Parameters is PBKDF2-params of RFC 8018, appendix A.2. The salt is always
// the octet string of the CHOICE; the other arm was never used.
type pbkdf2Parameters struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	Function   pkix.AlgorithmIdentifier `asn1:"optional"`
}

// decryptPKCS8 opens an EncryptedPrivateKeyInfo and returns PKCS #8 DER. A wrong
// password mostly shows as bad padding (errBadPassword) and otherwise as DER
// that does not parse: the caller treats both alike.
func decryptPKCS8(der, password []byte, iterationLimit int) ([]byte, error) {
	var info encryptedPrivateKeyInfo
	if err := unmarshalExactly(der, &info); err != nil {
		return nil, errBadEncryptedKey
	}
	if info.Algorithm.Algorithm.String() != "1.2.840.113549.1.5.13" { // id-PBES2
		return nil, errUnsupportedEncryption
	}
	var parameters pbes2Parameters
	if err := unmarshalExactly(info.Algorithm.Parameters.FullBytes, &parameters); err != nil {
		return nil, errBadEncryptedKey
	}
	newBlock, keyLength := blockCipher(parameters.Encryption.Algorithm)
	if newBlock == nil {
		return nil, errUnsupportedEncryption
	}
	key, err := deriveKey(parameters.KeyDerivation, password, keyLength, iterationLimit)
	if err != nil {
		return nil, err
	}
	block, err := newBlock(key)
	if err != nil {
		return nil, errUnsupportedEncryption
	}
	return decryptCBC(block, parameters.Encryption.Parameters.FullBytes, info.Data)
}

func deriveKey(algorithm pkix.AlgorithmIdentifier, password []byte, keyLength, iterationLimit int) ([]byte, error) {
	if algorithm.Algorithm.String() != "1.2.840.113549.1.5.12" { // id-PBKDF2
		return nil, errUnsupportedEncryption
	}
	var parameters pbkdf2Parameters
	if err := unmarshalExactly(algorithm.Parameters.FullBytes, &parameters); err != nil {
		return nil, errBadEncryptedKey
	}
	if parameters.Iterations < 1 || parameters.Iterations > iterationLimit {
		return nil, errTooManyIterations
	}
	if parameters.KeyLength != 0 && parameters.KeyLength != keyLength {
		return nil, errBadEncryptedKey
	}
	function := pseudorandomFunction(parameters.Function.Algorithm)
	if function == nil {
		return nil, errUnsupportedEncryption
	}
	key, err := pbkdf2.Key(function, string(password), parameters.Salt, parameters.Iterations, keyLength)
	if err != nil { // FIPS mode refuses short salts and keys
		return nil, errUnsupportedEncryption
	}
	return key, nil
}

// pseudorandomFunction maps the HMAC identifiers of RFC 8018, appendix B.1. An
// absent one means HMAC-SHA1.
func pseudorandomFunction(id asn1.ObjectIdentifier) func() hash.Hash {
	switch id.String() {
	case "", "1.2.840.113549.2.7":
		return sha1.New
	case "1.2.840.113549.2.9":
		return sha256.New
	case "1.2.840.113549.2.10":
		return sha512.New384
	case "1.2.840.113549.2.11":
		return sha512.New
	}
	return nil
}

// blockCipher maps the encryption schemes of RFC 8018, appendix B.2, to a
// constructor and its key length in bytes.
func blockCipher(id asn1.ObjectIdentifier) (newBlock func([]byte) (cipher.Block, error), keyLength int) {
	switch id.String() {
	case "2.16.840.1.101.3.4.1.2":
		return aes.NewCipher, 16
	case "2.16.840.1.101.3.4.1.22":
		return aes.NewCipher, 24
	case "2.16.840.1.101.3.4.1.42":
		return aes.NewCipher, 32
	case "1.2.840.113549.3.7":
		return des.NewTripleDESCipher, 24
	}
	return nil, 0
}

// decryptCBC decrypts and removes the padding of RFC 8018, section 6.1.1.
func decryptCBC(block cipher.Block, parameters, data []byte) ([]byte, error) {
	var initial []byte
	if err := unmarshalExactly(parameters, &initial); err != nil || len(initial) != block.BlockSize() {
		return nil, errBadEncryptedKey
	}
	if len(data) == 0 || len(data)%block.BlockSize() != 0 {
		return nil, errBadEncryptedKey
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, initial).CryptBlocks(plain, data)
	padding := int(plain[len(plain)-1])
	if padding < 1 || padding > block.BlockSize() {
		return nil, errBadPassword
	}
	for _, b := range plain[len(plain)-padding:] {
		if int(b) != padding {
			return nil, errBadPassword
		}
	}
	return plain[:len(plain)-padding], nil
}

func unmarshalExactly(der []byte, value any) error {
	rest, err := asn1.Unmarshal(der, value)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errors.New("trailing bytes")
	}
	return nil
}
