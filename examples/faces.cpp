// Faces of a picture: one ONNX file, onnxruntime's C++ API, no other library.
//
//     faces best.pipeline.onnx picture.ppm
//
// prints a line for each face: its score, its box x1 y1 x2 y2, then x y of each landmark, all in px of the picture. The picture is a
// binary PPM (`convert face.jpg face.ppm`); a program that has OpenCV passes the data of its cv::Mat instead.
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

struct Picture {
    int64_t width = 0, height = 0;
    std::vector<uint8_t> bgr;  // height x width x 3
};

int64_t read_number(std::istream& file) {
    while ((file >> std::ws).peek() == '#') {
        std::string comment;
        std::getline(file, comment);
    }
    int64_t number = 0;
    if (!(file >> number) || number < 1 || number > 65535) throw std::runtime_error("the header of the picture is damaged");
    return number;
}

Picture read_ppm(const char* name) {
    std::ifstream file(name, std::ios::binary);
    char magic[2] = {};
    if (!file.read(magic, 2) || magic[0] != 'P' || magic[1] != '6') throw std::runtime_error("the picture is no binary PPM");
    Picture picture;
    picture.width = read_number(file);
    picture.height = read_number(file);
    if (read_number(file) != 255) throw std::runtime_error("the picture has more than 8 bits a colour");
    picture.bgr.resize(3 * picture.width * picture.height);
    file.get();  // one blank ends the header
    if (!file.read(reinterpret_cast<char*>(picture.bgr.data()), picture.bgr.size())) throw std::runtime_error("the picture is cut short");
    for (size_t i = 0; i < picture.bgr.size(); i += 3) std::swap(picture.bgr[i], picture.bgr[i + 2]);  // PPM is RGB
    return picture;
}

int main(int count, char** words) try {
    if (count != 3) throw std::runtime_error("usage: faces best.pipeline.onnx picture.ppm");
    Picture picture = read_ppm(words[2]);

    Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
    std::string file = words[1];
    Ort::Session session(env, std::basic_string<ORTCHAR_T>(file.begin(), file.end()).c_str(), Ort::SessionOptions());

    std::array<int64_t, 3> shape = {picture.height, picture.width, 3};
    Ort::Value image = Ort::Value::CreateTensor<uint8_t>(Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault),
                                                         picture.bgr.data(), picture.bgr.size(), shape.data(), shape.size());
    const char* inputs[] = {"image"};
    const char* outputs[] = {"boxes", "scores", "landmarks"};
    std::vector<Ort::Value> found = session.Run(Ort::RunOptions(), inputs, &image, 1, outputs, 3);

    std::vector<int64_t> size = found[2].GetTensorTypeAndShapeInfo().GetShape();  // faces, landmarks, 2
    const float *box = found[0].GetTensorData<float>(), *score = found[1].GetTensorData<float>();
    const float* point = found[2].GetTensorData<float>();
    for (int64_t face = 0; face < size[0]; ++face) {
        std::printf("%.4f", score[face]);
        for (int64_t i = 0; i < 4; ++i) std::printf(" %.3f", *box++);
        for (int64_t i = 0; i < 2 * size[1]; ++i) std::printf(" %.3f", *point++);
        std::printf("\n");
    }
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
}
